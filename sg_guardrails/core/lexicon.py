"""What everyday words have to do with each other: same, opposite, contrasting or unknown; from WordNet and curated groups."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path

_FILE = Path(__file__).with_name("lexicon.txt.gz")


class Kinship(Enum):
    """How two words relate."""

    SAME = "same"
    """One thing: synonyms, a thing and its kind, or two forms of one word."""
    OPPOSITE = "opposite"
    """Each denies the other: open and closed."""
    CONTRAST = "contrast"
    """Two of a kind that exclude each other: red and blue, cat and dog."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One word's relations, each a set of words."""

    synonyms: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    opposites: frozenset[str] = frozenset()
    kin: frozenset[str] = frozenset()
    bases: frozenset[str] = frozenset()


SYNONYMS = tuple(
    frozenset(line.split())
    for line in """
sofa couch settee loveseat
cat kitten kitty feline
dog puppy pup canine doggy hound
horse pony foal stallion mare
rabbit bunny hare
cow cattle calf
sheep lamb
chicken hen
duck duckling
man guy gentleman fellow bloke male dude men
woman lady female
boy lad
girl lass
child kid toddler youngster youth
baby infant newborn toddler
person somebody someone individual human anyone people everybody everyone anybody folk
mother mom mum mommy mama
father dad daddy papa
grandmother grandma granny
grandfather grandpa
daughter girl
son boy
bicycle bike
motorcycle motorbike
car automobile auto sedan
truck lorry
taxi cab
plane airplane aeroplane aircraft jet jetliner airliner
boat ship vessel
train locomotive
road street roadway lane avenue
sidewalk pavement footpath
curb kerb
shop store
supermarket grocery
house home
building structure
apartment flat
picture image photo photograph snapshot
sea ocean seaside
beach shore seashore seaside coast seafront shoreline
forest woods wood woodland
hill hillside
grass lawn grassy field meadow
field pasture meadow
stream brook creek
mountain peak mountainous
cup mug
glass tumbler
plate dish
fridge refrigerator
stove cooker oven
tv television telly
phone cellphone smartphone telephone mobile handset
laptop notebook computer
computer pc
sign signboard
trash garbage rubbish waste
can bin
cupboard cabinet
closet wardrobe
glasses spectacles eyeglasses eyewear
sunglasses shades
hat cap
shirt tshirt blouse top
sweater jumper pullover
jacket coat
trousers pants slacks
sneaker trainer shoe
umbrella parasol
candle candlelight
soccer football
meal dinner supper lunch food
soup broth
fries chips
cake pastry
biscuit cookie
sandwich sub
cheerful happy joyful merry glad joyous festive
sad unhappy gloomy sorrowful
angry mad furious upset
scared afraid frightened fearful terrified
calm peaceful serene tranquil
big large huge enormous giant massive
small little tiny
tall high lofty
old elderly aged
young youthful little
pretty beautiful lovely attractive
fast quick rapid
sick ill
tidy clean neat
crowded busy bustling packed full many
many numerous several lot lots plenty
several few some many multiple various number
close near nearby
centre center middle
upper top
lower bottom
left left-hand leftmost
right right-hand rightmost
behind back background rear
front foreground
under underneath beneath below
above over
beside next near adjacent alongside side by
inside in within indoors indoor
outside outdoors outdoor
grey gray
red crimson scarlet maroon burgundy ruby reddish
blue navy azure cobalt turquoise teal cyan bluish
cyan teal turquoise aqua
green lime olive emerald greenish
yellow golden gold lemon yellowish
orange amber
purple violet lavender lilac mauve magenta
pink rose magenta fuchsia
brown tan chestnut beige brownish
white ivory cream whitish
black ebony
silver silvery gray metallic
color colour
circle round circular disc disk
square quadrate
triangle triangular
rectangle rectangular
star starshaped
hold carry grasp clutch grip have
wear dress have clad dressed
ride cycle pedal
run jog sprint dash
walk stroll wander
walk hike
sleep nap doze asleep snooze slumber rest
sit seat seated
stand standing
look watch gaze stare view observe
talk speak chat converse discuss say
say read state display show write tell
smile grin smiling
laugh laughing giggle
cry weep tear sob
cut chop slice
cook prepare bake make
fix repair mend
kick boot
throw toss hurl pitch
jump leap hop
play playing
drink sip
eat dine consume munch
buy purchase
begin start
end finish stop
leave depart takeoff
arrive reach come pull
wait queue
fall drop decline decrease descend down
rise increase climb grow up
lie lay rest sleep
park station
lean prop
set place put
surf surfing
hang suspend
cover covered
cloudy overcast cloud gray grey
sunny sun sunshine bright clear
rain rainy raining wet drizzle pour
snow snowy snowing
wind windy
foggy misty fog mist
night nighttime evening
morning dawn sunrise
sunset dusk sunset evening
day daytime daylight
autumn fall
city urban town downtown
country rural countryside
traffic jam
chef cook
doctor physician
police policeman officer cop
firefighter fireman
teacher instructor
soldier troop
rock stone boulder
gift present
coffee espresso latte
bread loaf bun roll
potato spud
corn maize
eggplant aubergine
zucchini courgette
candy sweet
movie film
mood atmosphere vibe feeling
elementary primary
floor ground
story storey floor
rug carpet mat
bag handbag purse
backpack rucksack bag
suitcase luggage
highway motorway freeway
gas petrol gasoline
elevator lift
modern contemporary
skyscraper tower highrise high-rise
vote ballot
answer reply
ad advert advertisement advertise billboard
lady woman
mistake error
scene image setting
drive driving
voice speech
bark barking
loud noisy
quiet silent
group crowd bunch number several
""".strip().splitlines()
)
"""Words that name one thing in an answer about a picture, beyond WordNet's synonyms. A word may stand in several groups."""

KINDS = tuple(
    (kind, frozenset(members.split()))
    for kind, members in (
        line.split(":")
        for line in """
vehicle: car bus truck van taxi ambulance motorcycle tractor bicycle train lorry automobile suv
traffic: car bus truck vehicle
person: man woman boy girl child kid pedestrian passerby guy lady chef player worker customer hiker surfer rider baby tourist passenger speaker student teacher shopper
people: men women boys girls children kids pedestrians families family crowd group visitors customers hikers tourists passengers players workers shoppers
adult: man woman
child: boy girl baby daughter son
parent: mother father mom dad
animal: dog cat horse cow sheep goat pig rabbit bird elephant lion tiger bear fish duck chicken kitten puppy deer giraffe zebra monkey
bird: pigeon gull seagull duck owl eagle parrot sparrow crow swan chicken
fruit: apple orange banana grape pear strawberry lemon peach
vegetable: carrot onion tomato potato broccoli pepper lettuce
food: pizza sandwich burger salad pasta rice soup meal dish bread cake sushi
drink: coffee tea juice water soda beer wine
furniture: chair table sofa couch desk bed
building: house tower school church skyscraper shop
tree: pine oak palm birch maple
flower: rose tulip daisy sunflower
water: wave sea ocean lake pool river stream
seat: chair bench
shape: circle square triangle rectangle star hexagon
ball: baseball football basketball soccer
weapon: gun knife rifle pistol sword
device: phone laptop computer tablet smartphone
metal: steel iron aluminum
body: lake river
""".strip().splitlines()
    )
)
"""A kind and what may stand in its place in an answer: the members are not each other."""

OPPOSITES = tuple(
    frozenset(line.split())
    for line in """
on off
open closed shut close
asleep awake
sleep awake
full empty
dry wet
clean dirty
indoors outdoors
inside outside
lit unlit
old new
light dark
moving stationary
move still
correct incorrect
true false
safe dangerous
safe unsafe
present absent
alive dead
smile frown
healthy sick
""".strip().splitlines()
)
"""Words of which each denies the other, beyond WordNet's opposites."""

CONTRASTS = tuple(
    frozenset(line.split())
    for line in """
red blue green yellow orange purple pink brown black white gray cyan gold silver beige turquoise magenta violet
circle square triangle rectangle star hexagon pentagon oval ellipse diamond cross heart cube sphere cone cylinder pyramid ball
left right
up down
top bottom upper lower middle
above under
front behind
on under above beside behind
inside outside
toward away
into out
cat dog horse cow sheep goat pig rabbit bird lion tiger elephant bear wolf fox monkey fish giraffe zebra mouse duck chicken
car bus truck van train plane boat bicycle motorcycle taxi ambulance tractor helicopter scooter tram
spring summer autumn winter
morning afternoon evening night
sunny rainy cloudy snowy foggy stormy
monday tuesday wednesday thursday friday saturday sunday
january february march april may june july august september october november december
wood metal glass plastic stone paper leather brick cotton concrete steel wool wooden
kitchen bedroom bathroom office garage garden classroom library garage cafeteria hallway basement attic
beach mountain forest desert city park street river lake field farm
happy sad angry scared surprised bored tired calm
sit stand lie run walk jump swim fly climb kneel crouch dance
throw catch
tennis soccer basketball baseball golf hockey volleyball rugby cricket badminton skiing
knife fork spoon cup plate bowl bottle
man woman
boy girl
male female
mother father
young old
big small
long short
tall short
hot cold
mph kmh
kilometer mile meter
first last
clockwise counterclockwise
north south east west
buy sell
push pull
rise increase grow climb fall drop decline decrease shrink
enter exit
""".strip().splitlines()
)
"""Words that exclude each other in one slot, beyond what WordNet's kinds show."""


@cache
def _table() -> dict[str, str]:
    with gzip.open(_FILE, "rt", encoding="utf-8") as file:
        return {word: rest for word, _, rest in (line.rstrip("\n").partition("|") for line in file) if word[:1] != "#"}


@lru_cache(maxsize=50_000)
def entry(word: str) -> Entry | None:
    """The word's relations, or None where it is not an everyday word."""
    line = _table().get(word)
    if line is None:
        return None
    parts = {part[0]: frozenset(part[1:].split()) for part in line.split("|") if part}
    return Entry(*(parts.get(mark, frozenset()) for mark in "=^!~+"))


_ENDINGS = (
    ("'s", ""),
    ("ies", "y"),
    ("ves", "f"),
    ("es", ""),
    ("s", ""),
    ("ied", "y"),
    ("ed", "e"),
    ("ed", ""),
    ("ying", "ie"),
    ("ing", "e"),
    ("ing", ""),
    ("est", ""),
    ("est", "e"),
    ("er", ""),
    ("er", "e"),
)


@lru_cache(maxsize=50_000)
def lemmas(word: str) -> frozenset[str]:
    """The base forms that a token may stand for, itself included: "lying" is lie, "mice" mouse, "parked" park."""
    found = {word}
    known = entry(word)
    if known is not None:
        found |= known.bases
    for ending, base in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word[: len(word) - len(ending)] + base
            doubled = stem[:-1] if re.search(r"([bdgklmnprt])\1$", stem) else stem
            comparative = ending in {"er", "est"} and (known is not None)
            found |= {form for form in (stem, doubled) if entry(form) is not None and not comparative}
    if len(found) == 1 and word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        found.add(word[:-1])  # an unlisted plural
    return frozenset(found)


@lru_cache(maxsize=50_000)
def _groups(word: str) -> frozenset[int]:
    return frozenset(i for i, group in enumerate(SYNONYMS) if not group.isdisjoint(lemmas(word)))


@lru_cache(maxsize=50_000)
def _kinds(word: str) -> tuple[frozenset[str], frozenset[str]]:
    """The curated kinds that the word is one of, and the curated members of the kind that it names."""
    forms = lemmas(word)
    above = frozenset(kind for kind, members in KINDS if not members.isdisjoint(forms))
    below = frozenset().union(*(members for kind, members in KINDS if kind in forms))
    return above, below


@lru_cache(maxsize=50_000)
def _opposed(word: str) -> frozenset[int]:
    return frozenset(i for i, group in enumerate(OPPOSITES) if not group.isdisjoint(lemmas(word)))


@lru_cache(maxsize=50_000)
def _merged(word: str) -> Entry:
    """Relations of the word's base forms together."""
    entries = [known for form in lemmas(word) if (known := entry(form)) is not None]
    names = ("synonyms", "kinds", "opposites", "kin")
    return Entry(*(frozenset().union(*(getattr(known, name) for known in entries)) for name in names))


@lru_cache(maxsize=50_000)
def _contrasts(word: str) -> frozenset[int]:
    """The contrast sets that hold the word or its curated synonym."""
    forms = lemmas(word)
    return frozenset(i for i, group in enumerate(CONTRASTS) if not group.isdisjoint(forms))


def is_known(word: str) -> bool:
    """Whether the lexicon knows any base form of the word."""
    return any(entry(form) is not None for form in lemmas(word))


@lru_cache(maxsize=200_000)
def kinship(one: str, other: str) -> Kinship:
    """How two tokens relate; symmetric."""
    if one > other:
        return kinship(other, one)
    mine, theirs = lemmas(one), lemmas(other)
    if mine & theirs:
        return Kinship.SAME
    if _groups(one) & _groups(other) or _kinds(one)[0] & theirs or _kinds(other)[0] & mine:
        return Kinship.SAME
    if _opposed(one) & _opposed(other):
        return Kinship.OPPOSITE
    left, right = _merged(one), _merged(other)
    if left.opposites & theirs or right.opposites & mine:
        return Kinship.OPPOSITE
    if _contrasts(one) & _contrasts(other):
        return Kinship.CONTRAST
    related = left.synonyms | left.kinds | left.kin
    if related & theirs or (right.synonyms | right.kinds | right.kin) & mine:
        return Kinship.SAME
    if left.kinds & right.kinds:
        return Kinship.CONTRAST
    return Kinship.UNKNOWN
