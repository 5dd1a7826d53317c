"""Thoughts that a model writes before its answer, such as <think> ... </think>."""

import re

_NAMES = "think|thinking|thought|thoughts|reasoning|reason|reflection|seed:think"
OPENING = re.compile(rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
CLOSING = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
THOUGHT_MARKS = re.compile(f"{OPENING.pattern}|{CLOSING.pattern}", re.IGNORECASE)


HARMONY = re.compile(r"analysis(?=\S).*?assistantfinal", re.DOTALL)
"""A thought of gpt-oss where the server leaves out the control tokens between its parts."""


def without_thought(text: str) -> tuple[str, bool]:
    """The text after the thought that it begins with, and whether that thought ends.

    Chat templates may open the thought themselves, so that the text has only its end; a later end without a beginning
    is left in the text. The text is empty where the thought never ends.
    """
    answer, is_first = text.strip(), True
    if harmony := HARMONY.match(answer):
        return answer[harmony.end() :].strip(), True
    while True:
        opening, closing = OPENING.search(answer), CLOSING.search(answer)
        is_open = opening is not None and opening.start() == 0
        if closing is None:
            return ("", False) if is_open else (answer, True)
        if not is_open and (not is_first or (opening is not None and opening.start() < closing.start())):
            return answer, True
        answer, is_first = answer[closing.end() :].strip(), False


def opened_thought(prompt_end: str) -> str:
    """The mark, with what follows it, of a thought that a prompt's last words open; empty where they open none."""
    marks = list(THOUGHT_MARKS.finditer(prompt_end))
    if not marks or not OPENING.fullmatch(marks[-1][0]) or prompt_end[marks[-1].end() :].strip():
        return ""
    return prompt_end[marks[-1].start() :]
