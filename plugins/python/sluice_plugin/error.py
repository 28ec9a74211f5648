"""Errors whose text may leave the component."""


class PluginError(Exception):
    """An error that the operator may read.

    The texts of other errors stay inside while batches are processed, because Python likes to quote the value at fault; of those
    only the kind and the place are told.
    """


def public_text(error: BaseException) -> str:
    """What is told of an error of `process`."""
    if isinstance(error, PluginError):
        return str(error)
    place = ""
    step = error.__traceback__
    # Not with `traceback`, which reads source files: a component has none, and the attempt would end it.
    while step is not None:
        code = step.tb_frame.f_code
        if "sluice_plugin" not in code.co_filename:
            place = f" in {code.co_name}, line {step.tb_lineno}"
        step = step.tb_next
    return f"{type(error).__name__}{place}"


def suggestion(wrong: str, names) -> str:
    """`; did you mean …?` if one of the names is close, else nothing."""
    closest = min(((_edit_distance(wrong, name), name) for name in names), default=(len(wrong), ""))
    return f"; did you mean `{closest[1]}`?" if closest[0] <= max(1, len(wrong) // 3) else ""


def _edit_distance(a: str, b: str) -> int:
    """Letters put in, left out, replaced or swapped with their neighbour."""
    before: list[int] = []
    above = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        line = [row]
        for column, right in enumerate(b, 1):
            best = min(above[column - 1] + (left != right), above[column] + 1, line[-1] + 1)
            if row > 1 and column > 1 and left == b[column - 2] and a[row - 2] == right:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, above = above, line
    return above[-1]
