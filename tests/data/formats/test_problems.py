"""Lines that stand for many entries of a data set."""

from boxwright.data.formats.problems import ProblemLog


def test_a_gathered_line_counts_all_and_lists_some() -> None:
    log = ProblemLog()
    for number in range(50):
        for file in ("a.json", "b.json"):
            log.gather("listed", "info", file, f"key{number}", "not read: {items}")
            log.gather(
                "counted", "info" if number else "warning", file, f"image {number}", "{count} images, as {first}"
            )
    listed, counted = log.problems
    assert listed.message == (f"not read: {', '.join(f'key{n}' for n in range(20))} and 30 more (and in 1 more file)")
    assert counted.message == "100 images, as image 0"
    assert (listed.severity, counted.severity) == ("info", "warning")
