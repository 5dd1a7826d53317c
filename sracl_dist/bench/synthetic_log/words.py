"""English words of the interests: what is sold, how it is described, what it is for, and by whom."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Words that stand for one kind of interest."""

    name: str
    products: tuple[str, ...]
    """Eight; each is a subcategory."""
    adjectives: tuple[str, ...]
    uses: tuple[str, ...]
    brands: tuple[str, ...]


def _theme(name: str, products: str, adjectives: str, uses: str, brands: str) -> Theme:
    return Theme(name, *(tuple(words.split(", ")) for words in (products, adjectives, uses, brands)))


THEMES = (
    _theme(
        "Gardening",
        "pruning shears, watering can, flower bulbs, compost bin, garden hose, seed tray, plant pot, trowel",
        "rustproof, perennial, leafy, weatherproof, organic, sunny",
        "vegetable beds, balconies in bloom, greenhouse mornings",
        "Greenleaf, Thornfield, Meadow & Root, Sprout House, Old Orchard",
    ),
    _theme(
        "Coffee",
        "espresso machine, coffee grinder, dripper, milk frother, roasted beans, moka pot, cupping spoon, mug",
        "aromatic, dark roast, single origin, creamy, freshly ground, bitter",
        "slow breakfasts, the office kitchen, baristas at home",
        "Crema Works, Black Kettle, Highland Roasters, Bean Street, Morning Cup",
    ),
    _theme(
        "Cycling",
        "bicycle helmet, inner tube, saddle, handlebar tape, chain lube, bike lock, pedals, bottle cage",
        "aerodynamic, gravel, lightweight, tubeless, reflective, geared",
        "steep climbs, daily commuting, long tours",
        "Velocity, Spoke & Chain, Col Racing, Derailleur Bros, Peloton Goods",
    ),
    _theme(
        "Astronomy",
        "telescope, eyepiece, star chart, tripod mount, solar filter, planisphere, finder scope, observing chair",
        "celestial, wide field, lunar, nebular, equatorial, achromatic",
        "moonless nights, watching Saturn, galaxy hunting",
        "Orbit Optics, Zenith, Northern Star, Perihelion, Dark Sky",
    ),
    _theme(
        "Baking",
        "rolling pin, cake tin, stand mixer, piping bag, bread flour, proofing basket, cookie cutter, oven mitt",
        "nonstick, sourdough, fluffy, buttery, sweet, wholegrain",
        "birthday cakes, crusty loaves, christmas biscuits",
        "Flour & Hearth, Golden Crust, Sugar Mill, Patisserie Nine, The Dough Room",
    ),
    _theme(
        "Fishing",
        "fishing rod, spinning reel, lure, landing net, tackle box, waders, bait bucket, braided line",
        "freshwater, telescopic, weighted, saltwater, baited, floating",
        "trout streams, carp ponds, deep sea trips",
        "River Bend, Hook & Line, Pike Brothers, Tidewater, Angler Supply",
    ),
    _theme(
        "Painting",
        "oil paint, watercolour set, canvas, easel, palette knife, hog brush, sketchbook, varnish",
        "pigmented, translucent, cobalt, archival, primed, bristly",
        "portraits, landscapes in the open, still lifes",
        "Atelier, Ochre & Umber, Linseed, Gallery North, Umbra Arts",
    ),
    _theme(
        "Camping",
        "tent, sleeping bag, camp stove, headlamp, hammock, sleeping mat, water filter, folding chair",
        "waterproof, three season, packable, insulated, ultralight, rugged",
        "forest weekends, high plateaus, family campsites",
        "Basecamp, Pine Ridge, Wild Hollow, Trailhead, Ember Outdoor",
    ),
    _theme(
        "Photography",
        "zoom lens, camera body, flash unit, memory card, lens cloth, light meter, camera strap, softbox",
        "telephoto, full frame, mirrorless, sharp, exposed, monochrome",
        "weddings, street scenes, studio work",
        "Aperture, Silver Grain, Shutterfield, Lumen Lab, Focal Point",
    ),
    _theme(
        "Chess",
        "chess board, wooden pieces, chess clock, opening book, endgame manual, travel set, score pad, puzzle deck",
        "weighted, tournament, magnetic, strategic, boxwood, checkered",
        "club evenings, blitz in the park, patient analysis",
        "Gambit, Rook & Pawn, Castle House, Zugzwang, Grandmaster Press",
    ),
    _theme(
        "Aquariums",
        "fish tank, air pump, aquatic gravel, heater, algae scraper, fish flakes, coral light, canister filter",
        "submersible, tropical, silent, planted, bubbly, brackish",
        "neon tetras, reef keepers, desks with shrimp",
        "Blue Lagoon, Gill & Fin, Reef Life, Stillwater, Aqua Nova",
    ),
    _theme(
        "Running",
        "running shoes, hydration vest, stopwatch, compression socks, singlet, energy gel, visor, foam roller",
        "cushioned, breathable, paced, sweatproof, springy, marathon",
        "tempo runs, muddy trails, race day",
        "Stride, Second Wind, Fleetfoot, Kilometre Club, Finish Line",
    ),
    _theme(
        "Knitting",
        "merino yarn, knitting needles, stitch markers, crochet hook, yarn bowl, counter, pattern, thimble",
        "woolly, chunky, handspun, cabled, soft, variegated",
        "winter scarves, baby blankets, evenings by the fire",
        "Woolgather, Purl & Plain, Sheepfold, Loom Lane, Spindle",
    ),
    _theme(
        "Music",
        "acoustic guitar, drum sticks, metronome, guitar strings, music stand, violin bow, keyboard, capo",
        "resonant, tuned, acoustic, melodic, amplified, rosewood",
        "band rehearsals, quiet practice, open stages",
        "Treble Clef, Fret & Co, Harmonic, Blue Note, Cadence",
    ),
    _theme(
        "Skincare",
        "face cream, serum, cleansing balm, sunscreen, sheet mask, toner, eye gel, lip balm",
        "hydrating, soothing, fragrance free, brightening, gentle, botanical",
        "dry skin, sensitive faces, bedtime routines",
        "Dewdrop, Pure Petal, Calm Skin, Rosewater, Clear & Fair",
    ),
    _theme(
        "Woodworking",
        "chisel, hand plane, dovetail saw, wood glue, bench vise, mortise gauge, sanding block, mallet",
        "hardened, hickory, bevelled, keen, seasoned, planed",
        "joinery, small workshops, furniture repair",
        "Oak & Iron, Sawdust, Master Joiner, Timberline, Bench Dog",
    ),
    _theme(
        "Toys",
        "building bricks, wooden train, teddy bear, jigsaw puzzle, kite, spinning top, doll house, play dough",
        "playful, colourful, cuddly, stackable, giggly, washable",
        "rainy afternoons, toddlers, kindergarten groups",
        "Tumble, Happy Fox, Little Harbour, Playmates, Wonder Box",
    ),
    _theme(
        "Sailing",
        "life jacket, anchor, mooring rope, marine compass, sail repair tape, winch handle, bilge pump, deck shoes",
        "nautical, buoyant, marine grade, windward, galvanised, rigged",
        "coastal cruising, regattas, dinghy lessons",
        "Harbour Master, Jib & Boom, Leeward, Blue Pennant, Seafarer",
    ),
    _theme(
        "Dogs",
        "dog leash, chew toy, dog bed, harness, kibble, grooming brush, food bowl, training treats",
        "chewproof, adjustable, barking, obedient, furry, grain free",
        "puppies, long walks, old companions",
        "Good Boy, Wag & Tail, Paw Street, Kennel Club, Rover",
    ),
    _theme(
        "Computing",
        "mechanical keyboard, graphics card, solid state drive, usb hub, monitor arm, webcam, router, processor cooler",
        "overclocked, wireless, ergonomic, backlit, gigabit, quiet",
        "gaming rigs, home servers, programmers",
        "Bitforge, Kernel, Silicon Row, Octet, Hexagon Systems",
    ),
    _theme(
        "Yoga",
        "yoga mat, cork block, meditation cushion, stretching strap, bolster, singing bowl, leggings, eye pillow",
        "mindful, grippy, supple, serene, balanced, flowing",
        "sun salutations, deep breathing, restful evenings",
        "Lotus, Still Mind, Namaste Goods, Breathe, Open Sky",
    ),
    _theme(
        "History",
        "biography, battle atlas, chronicle, museum guide, ancient coins, letters, timeline poster, map reprint",
        "medieval, imperial, illustrated, forgotten, victorian, bronze age",
        "curious readers, school projects, armchair historians",
        "Clio Press, Parchment, Antiquity Books, Old World, Archive House",
    ),
    _theme(
        "Cooking",
        "chef knife, cast iron skillet, cutting board, spice rack, pepper mill, stock pot, wok, mandoline",
        "forged, savoury, spicy, seasoned iron, simmering, copper",
        "weeknight dinners, stir fries, slow stews",
        "Saffron, Copper Pot, Mise en Place, Hearthstone, Chili & Lime",
    ),
    _theme(
        "Climbing",
        "climbing rope, carabiner, chalk bag, crash pad, belay device, rock shoes, quickdraw, ice axe",
        "dynamic, overhanging, grippy rubber, vertical, anodised, alpine",
        "bouldering halls, limestone walls, frozen couloirs",
        "Crux, Granite, Summit Gear, Belay & Co, Karst",
    ),
)
QUALIFIERS = (
    "",
    "Vintage",
    "Professional",
    "Travel",
    "Beginner",
    "Luxury",
    "Eco",
    "Miniature",
    "Collector",
    "Urban",
)
"""The interests beyond the themes are a qualifier and a theme, such as Vintage Cycling."""
MAX_INTERESTS = len(THEMES) * len(QUALIFIERS)
