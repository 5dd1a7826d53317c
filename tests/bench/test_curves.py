from sracl_dist.bench.curves import curve, draw


def test_figures_of_a_size_make_a_curve() -> None:
    figures = {"wall_s_100": 9.0, "wall_s_20": 2.0, "wall_s": 5.0, "peak_rss_gb_20": 1.0}
    assert curve(figures, "wall_s") == [(20, 2.0), (100, 9.0)]
    assert curve(figures, "step_ms") == []


def test_every_curve_is_drawn_with_its_points() -> None:
    prepare = {"wall_s_10": 1.0, "wall_s_100": 12.0, "peak_rss_gb_10": 0.5, "peak_rss_gb_100": 0.7}
    catalogue = {"step_ms_10": 5.0, "step_ms_1000": 6.0, "peak_rss_gb_10": 0.4, "peak_rss_gb_1000": 0.9}
    drawn = [[tuple(point) for point in axes.lines[0].get_xydata().tolist()] for axes in draw(prepare, catalogue).axes]
    assert drawn == [
        [(10, 1.0), (100, 12.0)],
        [(10, 0.5), (100, 0.7)],
        [(10, 5.0), (1000, 6.0)],
        [(10, 0.4), (1000, 0.9)],
    ]
