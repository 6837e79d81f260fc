"""Forecast of the end of a run."""

from boxwright.training.logging.forecast import Forecast


def test_end_is_told_after_the_second_row_and_again_when_a_validation_is_measured():
    forecast = Forecast()
    assert not forecast.due()
    assert forecast.due()
    first = forecast.text(600.0, 4)
    assert first is not None
    assert first.startswith("about 10 min left, until ")
    assert first.endswith(", and 4 validations more")
    assert not forecast.due()
    forecast.validated(60.0)
    assert forecast.due()
    second = forecast.text(540.0, 3)
    assert second is not None
    assert second.startswith("about 12 min left, until ")
    assert "validation" not in second
    assert not forecast.due()


def test_run_without_validation_is_told_once():
    forecast = Forecast()
    forecast.due()
    assert forecast.due()
    assert forecast.text(600.0, 0) is not None
    forecast.validated(1.0)
    assert not forecast.due()


def test_end_within_seconds_is_not_told():
    forecast = Forecast()
    forecast.due()
    forecast.due()
    assert forecast.text(5.0, 0) is None
