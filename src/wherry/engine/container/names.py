"""Names of containers: what may be one, and the ones made up for those that were given none."""

from __future__ import annotations

import random
import re

from wherry.engine.errors import BadParameter

_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(f"{_ALLOWED}+", re.ASCII)


def check(name: str) -> str:
    """``name`` without the slash that clients may put before it.

    Raises:
        BadParameter: a container cannot be called so.
    """
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise BadParameter(f"Invalid container name ({name}), only {_ALLOWED} are allowed")
    return bare


def generate(attempt: int = 0) -> str:
    """``adjective_surname``, with a digit behind it from the second attempt on."""
    name = f"{random.choice(ADJECTIVES)}_{random.choice(SURNAMES)}"  # noqa: S311  no secret
    return name if not attempt else f"{name}{random.randrange(10)}"  # noqa: S311


_ADJECTIVES = """
    able agile amber ample apt astute avid awake balanced bold brave breezy bright brisk calm
    candid careful cheerful chipper civil clear clever cosmic cosy crisp curious daring dapper
    deft devoted diligent dreamy eager earnest easy elated elegant eloquent fair faithful famous
    fearless festive fine firm fleet fluent fond frank free friendly frosty funny gallant genial
    gentle gifted glad golden good graceful grand grateful great happy hardy hearty helpful honest
    hopeful humble inventive jolly jovial joyful keen kind laughing lively lucid lucky luminous
    magical mellow merry mindful modest musing neat nimble noble observant open optimistic
    patient peaceful pensive placid playful plucky polite practical proud quick quiet quirky
    radiant ready relaxed resolute robust rosy sage serene sharp shining silent sincere sleepy
    sober spirited steady stoic sturdy sunny sweet swift tender tidy tranquil trusting upbeat
    vibrant vigilant vivid warm wise witty wonderful zealous zen
"""
_SURNAMES = """
    abel agnesi allen ampere archimedes aryabhata avogadro babbage banach bardeen bartik bell
    bernoulli blackwell bohr boole bose boyd brahe brattain burnell cannon cantor carson cauchy
    cerf chandrasekhar chatelet chebyshev church clarke codd cori cray curie dalton darwin davinci
    dewdney dijkstra dirac easley edison einstein elion engelbart erdos euclid euler faraday
    fermat fermi feynman franklin galileo galois gates gauss germain goldberg goldstine goodall
    haibt hamilton hawking heisenberg hellman hermann herschel hertz hilbert hodgkin hofstadter
    hopper hubble hypatia jackson jang jemison jennings johnson joliot jones kalam kapitsa kare
    keldysh keller kepler khayyam khorana kilby kirch knuth kowalevski lagrange lalande lamarr
    lamport laplace leakey leavitt lederberg lehmann leibniz lewin lichterman liskov lovelace
    lumiere mahavira margulis maxwell mayer mccarthy mcclintock mclean mcnulty meitner mendel
    mendeleev meninsky merkle mestorf mirzakhani montalcini moore morse moser murdock napier nash
    neumann newton nightingale nobel noether noyce panini pare pascal pasteur payne perlman pike
    planck poincare poitras ptolemy raman ramanujan rhodes ride riemann ritchie robinson roentgen
    rosalind rubin saha sammet sanderson shannon shaw shirley shockley sinoussi snyder spence
    stonebraker sutherland swanson swartz swirles taussig tesla tharp thompson torvalds tu turing
    varahamihira vaughan villani visvesvaraya volhard wescoff wilbur wiles williams wilson wing
    wozniak wright wu yalow yonath zhukovsky
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
SURNAMES = tuple(_SURNAMES.split())
