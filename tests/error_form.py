"""The form of every error that the program reports: what failed, why, and what to do."""

import re

BEGINNING = re.compile(r"(Cannot [a-z]|--\w+( and --\w+)* (must|only appl)|No [a-z])")
VERBS = (  # one of them begins the sentence that says what to do
    "Add|Change|Check|Choose|Close|Convert|Copy|Create|Delete|Download|Enter|Free|Give|Install|Leave|Lower|Make|Move|"
    "Omit|Pass|Raise|Reduce|Remove|Rename|Repeat|Replace|Restore|Restart|Run|See|Set|Split|Start|Stop|Train|Try|Update|Use|"
    "Wait|Write"
)
ADVICE = re.compile(rf"[.)?!:] ({VERBS})\b")


def flaw(message):
    """What is wrong with the form of an error's message; an empty text where nothing is."""
    if not BEGINNING.match(message):
        return "begins with none of: Cannot ..., --flag must ..., --flag only applies ..., No ..."
    is_rule = re.match(r"--\w+ must ", message)
    if not is_rule and not ADVICE.search(message):
        return "does not say what to do"
    if message[-1] not in ".?":
        return "does not end with a full stop"
    return ""
