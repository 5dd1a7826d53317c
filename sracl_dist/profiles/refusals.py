"""Whether an answer only says that there will be none.

Titles begin like excuses ("I Can't Give You Anything but Love"), so a model that cannot counts only with a verb of its
task, and with an object where a title may have the verb as well.
"""

import re
from collections.abc import Iterable

_CANNOT = (
    r"(?:can ?not|can't|could ?n[o']t|(?:won't|will not)(?: be able to)?|am (?:unable|not able) to"
    r"|'m (?:unable|not able) to)"
)
_OBJECT = (
    r"(?= (?:an?|the|this|that|these|those|any|such|your|it|its|you|with|about|for|further|more|what|who|why|how|"
    r"whether|based|without|information|details|descriptions?)\b| ?[.,;!]|$)"
)
_TASK = (
    r"(?:(?:provide|assist|fulfill?|comply|determine|summari[sz]e|generate|respond|engage|process|access|analy[sz]e)\b"
    rf"|(?:describe|answer|create|write|discuss|complete|continue|share|offer|do (?:that|this))\b{_OBJECT}"
    r"|help (?:you\b(?: with\b|[.,;!]|$)|with\b|further\b)|help ?(?:[.,;!]|$))"
)
_SAY = r"(?:say|tell|know|see|find|give|identify|recommend|write|read|watch|make|judge|offer|help|do)\b"
_SORRY = (
    r"(?:(?:(?:i'm |i am )?(?:so |very )?sorry|(?:i |my )?apologi(?:[sz]e|es)(?: for [^.,;]{1,40})?|unfortunately"
    r"|i regret(?: to (?:say|inform you|tell you))?)[,.;:!]? (?:but |however,? |that )?)"
)
_FACTS = r"(?:information|data|details|context)\b"
_NOT_ENOUGH = (
    r"(?:(?:enough|sufficient|access to|the (?:necessary|required))\b"
    rf"|(?:any |specific |further |more ){{0,2}}{_FACTS})"
)
_ITEM = r"(?:enough|anything about|(?:this|that|the) [\w-]+(?=[.,;!]| (?:and|so|but|or|well|enough)\b|$))"
_MODEL = (
    r"(?:just |only |simply )?an? (?:(?:large )?(?:ai )?language model\b"
    r"|(?:ai|artificial intelligence)(?: assistant| model)?(?:,| and| so) )"
)
_DO_NOT = r"(?:do n[o']t|don't)"
REFUSED = re.compile(
    rf"{_SORRY}(?:as an ai\b|i ?{_CANNOT} ?(?:{_TASK}|{_SAY}|[.,;!]|$)"
    rf"|i (?:{_DO_NOT} (?:have|know|see|recogni[sz]e|understand|think i can)|must decline)\b)"
    r"|as an? (?:large )?(?:ai )?language model\b"
    r"|as an (?:ai|artificial intelligence)(?: assistant| model| system)?,? (?:i\b|my\b|it is not\b)"
    rf"|(?:i am|i'm) {_MODEL}"
    rf"|(?:i ?|we ){_CANNOT} {_TASK}"
    rf"|i {_DO_NOT} have {_NOT_ENOUGH}"
    rf"|i {_DO_NOT} (?:know|recogni[sz]e) {_ITEM}"
    r"|(?:i am|i'm) not (?:familiar with|aware of) (?:this|that|the)\b"
    rf"|(?:there (?:is|are|'s) ?|there's )(?:not (?:enough|sufficient)|insufficient|no) {_FACTS}"
    rf"|there (?:is|are)n't (?:enough|sufficient|any) {_FACTS}"
    rf"|(?:not enough|insufficient) {_FACTS}"
    r"|(?:很)?(?:抱歉|对不起)[\uff0c,。 ]*(?:但)?(?:我|作为)|作为(?:一个|一名)?(?:人工智能|ai)",
)
"""What a model says that does not answer, at the beginning of its lower-case text with straight apostrophes."""


def is_refusal(text: str, starts: Iterable[str] = ()) -> bool:
    """Whether a text begins with a model's excuse, perhaps after the words that every answer begins with."""
    text = text.lower().replace("\u2019", "'")
    start = next((start for start in starts if text.startswith(start.lower())), "")
    return REFUSED.match(re.sub(r"^\W+", "", text[len(start) :])) is not None
