"""Histories and the places of items in them, by hand; nothing held out is visible."""

from small_texts import item_text, sequences_of

from sracl_dist.profiles.texts import TrainingTexts


def test_only_training_items_are_visible(texts: TrainingTexts) -> None:
    assert [texts.history(user) for user in range(3)] == [[1, 2, 3, 4], [2, 3, 1], [4, 4]]
    assert texts.num_training().tolist() == [0, 2, 2, 2, 3, 0, 0]


def test_histories_that_contain_an_item(texts: TrainingTexts) -> None:
    assert texts.histories_with(3, 10, 10) == [[1, 2, 4], [2, 1]]
    assert texts.histories_with(3, 1, 10) == [[1, 2, 4]]
    assert texts.histories_with(3, 10, 1) == [[4], [1]]
    assert texts.histories_with(5, 10, 10) == [], "item 5 occurs only in held-out places"


def test_a_piece_is_near_the_item_and_within_the_history() -> None:
    history = [*list(range(1, 21)), 1, 2]
    texts = TrainingTexts([item_text(item) for item in range(1, 21)], sequences_of([history], 20))
    assert texts.histories_with(10, 1, 4) == [[8, 9, 11, 12]]
    assert texts.histories_with(1, 1, 4) == [[2, 3, 4, 5]]
    assert texts.histories_with(20, 1, 4) == [[16, 17, 18, 19]]


def test_the_chosen_histories_are_spread_over_the_users() -> None:
    histories = [[1, 2 + user, 1, 1] for user in range(10)]
    texts = TrainingTexts([item_text(item) for item in range(1, 12)], sequences_of(histories, 11))
    assert texts.histories_with(1, 3, 5) == [[2], [6], [11]]


def test_an_item_without_title_goes_by_its_id() -> None:
    assert item_text(7, title="").name == "B00007"
    assert item_text(7).line == "Film number 7 (Studio; Drama)"
    assert item_text(7, brand="", categories="").line == "Film number 7"
