"""Request of ``boxwright data split``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from boxwright.data.editing.split import SplitRules


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """Options of ``boxwright data split``."""

    val: Annotated[
        float | None,
        Parameter(
            help="Images for validation: a fraction of all, such as 0.2, or their number. 0 for none. Default: 0.2.",
            show_default=False,
        ),
    ] = None
    test: Annotated[
        float | None,
        Parameter(help="Images for testing, likewise. Default: none.", show_default=False),
    ] = None
    fractions: Annotated[
        tuple[float, ...],
        Parameter(
            help="Instead of --val and --test: the fractions of train, val and test, such as 0.7 0.2 0.1.",
            consume_multiple=True,
            show_default=False,
        ),
    ] = ()
    group_by: Annotated[
        str | None,
        Parameter(
            help="Keep images together in whose names this regular expression finds the same, such as '(.+)_frame' "
            "for the frames of a video: what its brackets hold, or else all that it matches. With a / in it, it is "
            "searched in the path below the data set.",
            show_default=False,
        ),
    ] = None
    near_duplicates: Annotated[
        bool,
        Parameter(
            help="Keep near-duplicate images together. They are found as by `data check`; exact copies always stay "
            "together.",
            show_default=False,
        ),
    ] = False
    keep: Annotated[
        tuple[str, ...],
        Parameter(
            help="Keep this split as it is and divide the images of the others. May be repeated.", show_default=False
        ),
    ] = ()
    seed: Annotated[int, Parameter(help="Seed of the choice. The same seed gives the same splits.")] = 0

    def rules(self) -> SplitRules:
        """Return the rules of the library."""
        from boxwright.data.editing.split import SplitRules

        return SplitRules(
            val=self.val,
            test=self.test,
            fractions=self.fractions,
            group_by=self.group_by,
            near_duplicates=self.near_duplicates,
            keep=self.keep,
            seed=self.seed,
        )
