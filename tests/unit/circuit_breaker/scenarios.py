"""What others publish about their circuit breakers, in our own words, and what this one does in the same place.

One row is one scenario: where it was read, the settings that come nearest, and the steps.  `differs` says where our
choice, written down in the documentation, is another one; without it both do the same.

The steps, with a space between them; ``*3`` repeats, ``@5`` is how many seconds a call takes:

====================  ==================================================================================================
``ok`` ``fail``       a call that succeeds, and one that fails
``ignored``           a call that raises what is ignored (``ignore``: a LookupError)
``other``             a call that raises what is no failure (where ``failure_on`` names OSError: a ValueError)
``cancel``            a call that is left by an exception which is no `Exception`
``false``             a call that returns False (where ``failure_if`` says that this is a failure)
``no`` ``no:5``       a call is rejected, and is told to come again after so many seconds (``none``: nobody knows)
``take:a`` ``a.ok``   a permit is taken and named; it reports: ``ok``, ``fail``, ``free``
``check``             the form without a token lets a call in; ``check:no``: it does not
``said.ok``           a report without a token; ``said.fail``
``wait:5``            seconds pass
``force_open:60``     a control, with the seconds it is for; ``disable``, ``metrics_only``, ``close``, ``reset``
``=open``             this is the state
``failures=3``        this is in the status; also ``successes`` ``slow`` ``rate`` ``slow_rate`` ``well`` ``bad``
                      (what probes reported) ``permits`` ``late`` ``retry``
====================  ==================================================================================================
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["SCENARIOS", "Scenario"]


class Scenario(NamedTuple):
    """One row."""

    source: str
    settings: dict[str, Any]
    steps: str
    differs: str = ""


# --- resilience4j -----------------------------------------------------------------------------------------------------

_R4J = "resilience4j, CircuitBreakerStateMachineTest."
_TIMED: dict[str, Any] = {
    "window": "time",
    "window_duration": 20,
    "minimum_calls": 5,
    "failure_rate_threshold": 0.5,
    "slow_call_rate_threshold": 0.5,
    "slow_call_duration": 4,
    "reset_timeout": 5,
    "half_open_max_calls": 4,
    "half_open_success_threshold": 4,
    "ignore": "builtins:LookupError",
}
_PROBING = "fail*5 =open wait:5 "
"""How those tests get to HALF_OPEN by a control of their own: here one has to fail and wait for it."""

_RESILIENCE4J = [
    Scenario(
        _R4J + "shouldOpenAfterFailureRateThresholdExceeded",
        _TIMED,
        "fail =closed rate=none failures=1 fail failures=2 fail failures=3 rate=none ok successes=1 ok =closed rate=0.6"
        " fail =open failures=4 rate=0.6666666666666666 no failures=4",
        "there the fifth call opens it, a success that fills the minimum; here only a failure or a slow call opens",
    ),
    Scenario(
        _R4J + "shouldOpenAfterFailureRateThresholdExceeded2",
        _TIMED,
        "ok wait:1 ok wait:1 ok wait:1 fail wait:1 fail =closed wait:1 =closed fail =open failures=3",
    ),
    Scenario(
        _R4J + "shouldOpenAfterSlowCallRateThresholdExceeded",
        _TIMED,
        "fail@5 =closed ok@5 =closed fail ok =closed ok@5 =open slow=3 slow_rate=0.6",
    ),
    Scenario(
        _R4J + "shouldOpenAfterSlowCallRateThresholdExceededUsingMockClock",
        _TIMED,
        "ok@5 slow=1 =closed ok@5 slow=2 ok@1 slow=2 ok@1 slow=2 =closed ok@5 =open slow=3 slow_rate=0.6",
    ),
    Scenario(
        _R4J + "shouldTransitionToHalfOpenAfterWaitDuration",
        _TIMED,
        "fail*5 =open no wait:3 =open no:2 wait:3 =open ok =half_open failures=5 well=1",
        "there the counts begin anew in HALF_OPEN; here they stay until it closes, and the probes are counted beside",
    ),
    Scenario(
        _R4J + "shouldTransitionToHalfOpenAfterPassedWaitDuration",
        _TIMED,
        "force_open:7200 =forced_open no:7200 wait:3600 no:3600 wait:3601 ok =half_open",
        "an opening by hand for a given time is FORCED_OPEN here, not OPEN",
    ),
    Scenario(
        _R4J + "shouldTransitionToHalfOpenAfterPassedWaitUntil",
        _TIMED,
        "force_open:1800 no wait:900 =forced_open no:900 wait:901 ok =half_open",
        "likewise; and the end is given as a span, not as an instant",
    ),
    Scenario(
        _R4J + "shouldTransitionToHalfOpenAfterWaitInterval",
        _TIMED | {"reset_timeout_backoff": 1.5},
        _PROBING + "fail =open no:7.5 wait:6 no:1.5 wait:1.5 ok =half_open",
        "there the second OPEN is made by a control; here the time grows after a failed probe, and only then",
    ),
    Scenario(
        _R4J + "shouldTransitionBackToOpenStateWhenFailureRateIsAboveThreshold",
        _TIMED,
        _PROBING + "fail =open bad=1",
        "there a rate over four probes is judged after the fourth; here the first failure opens it again",
    ),
    Scenario(
        _R4J + "shouldTransitionBackToOpenStateWhenFailureRateIsAboveThreshold, with numbers that come near",
        _TIMED | {"half_open_failure_threshold": 3},
        _PROBING + "fail*2 ok =half_open bad=2 well=1 fail =open",
    ),
    Scenario(
        _R4J + "shouldTransitionBackToOpenStateWhenSlowCallRateIsAboveThreshold",
        _TIMED | {"half_open_failure_threshold": 3},
        _PROBING + "ok@5 ok@5 =half_open bad=2 well=0 ok@5 =open",
        "there the fourth probe, a fast one, completes the rate; here the third slow one is enough",
    ),
    Scenario(
        _R4J + "shouldTransitionBackToClosedStateWhenFailureIsBelowThreshold",
        _TIMED | {"half_open_failure_threshold": 2, "half_open_success_threshold": 3},
        _PROBING + "fail ok*2 =half_open ok =closed failures=0 successes=0 ok successes=1 failures=0",
    ),
    Scenario(
        _R4J + "shouldOnlyPermitFourCallsInHalfOpenState",
        _TIMED,
        _PROBING + "take:a take:b take:c take:d =half_open permits=4 no no =half_open",
    ),
    Scenario(
        _R4J + "shouldThrowCallNotPermittedExceptionWhenNotFurtherTestCallsArePermitted",
        _TIMED,
        _PROBING + "take:a a.ok take:b b.ok take:c c.ok =half_open permits=0 take:d take:e permits=2 =half_open",
        "there four may probe in a whole phase; here four at one time, so that those which reported make room",
    ),
    Scenario(
        _R4J + "shouldIncreaseCounterOnReleasePermission",
        _TIMED,
        _PROBING + "take:a take:b take:c take:d no no a.free permits=3 take:e permits=4 no",
    ),
    Scenario(
        _R4J + "shouldResetMetrics", _TIMED, "ok fail successes=1 failures=1 reset =closed successes=0 failures=0"
    ),
    Scenario(_R4J + "shouldResetToClosedState", _TIMED, "fail*5 =open reset =closed ok"),
    Scenario(_R4J + "shouldResetClosedState", _TIMED, "ok*2 successes=2 reset =closed successes=0"),
    Scenario(
        _R4J + "shouldDisableCircuitBreaker",
        _TIMED,
        "disable =disabled ok fail*6 =disabled failures=0 successes=0 rate=none",
    ),
    Scenario(
        _R4J + "shouldForceOpenCircuitBreaker", _TIMED, "force_open no:none wait:6 no:none =forced_open failures=0"
    ),
    Scenario(
        _R4J + "shouldReleasePermissionWhenExceptionIgnored",
        _TIMED | {"half_open_failure_threshold": 2},
        _PROBING + "ok*3 well=3 ignored =half_open well=3 permits=0 fail =half_open ok =closed",
        "there the failure is the fourth of four probes, and one of four is below the rate; here a success closes",
    ),
    Scenario(
        _R4J + "shouldIgnoreExceptionsAndThenTransitionToClosed",
        _TIMED,
        _PROBING + "ignored*4 =half_open well=0 bad=0 permits=0 ok*3 =half_open well=3 ok =closed",
    ),
    Scenario(
        _R4J + "shouldResetMetricsAfterMetricsOnlyStateTransition",
        _TIMED,
        "ok*2 successes=2 metrics_only =metrics_only successes=0",
    ),
    Scenario(
        _R4J + "shouldRecordMetricsInMetricsOnlyState",
        _TIMED,
        "metrics_only fail*3 failures=3 rate=none ok*2 =metrics_only successes=2 rate=0.6 fail =metrics_only failures=4"
        " ok =metrics_only",
    ),
    Scenario(
        _R4J + "circuitBreakerTransitionsToOpenAfterWaitDurationInHalfOpenState",
        _TIMED | {"half_open_max_calls": 1},
        _PROBING + "take:a no:5 wait:4 no:1 wait:1 =half_open take:b b.ok =half_open",
        "there a phase has a longest time, after which it is OPEN again; here each permit has one, then goes to others",
    ),
    Scenario(
        _R4J + "circuitBreakerDoesNotPublishStateTransitionEventsForInternalTransitions",
        _TIMED,
        "fail fail failures=2 close =closed failures=2 force_open force_open:60 =forced_open no:60",
    ),
    Scenario(
        "resilience4j, CircuitBreakerMetricsTest.testCircuitBreakerMetrics",
        {"window": "count", "window_size": 10, "minimum_calls": 10},
        "ok*2 fail*2 failures=2 successes=2 rate=none fail*4 ok*4 failures=6 successes=4 rate=0.6 =closed ok*3"
        " rate=0.3",
        "there the tenth call opens it; here it is a success, which does not",
    ),
    Scenario(
        "resilience4j, CircuitBreakerExceptionHandlingTest"
        ".shouldRecordIOExceptionAsFailureAndBusinessExceptionAsSuccess",
        {"window": "count", "window_size": 5, "minimum_calls": 5, "failure_on": "builtins:OSError"},
        "fail other failures=1 successes=1",
    ),
    Scenario(
        "resilience4j, CircuitBreakerExceptionHandlingTest.shouldIgnoreNumberFormatException",
        {"window": "count", "window_size": 5, "minimum_calls": 5, "ignore": "builtins:LookupError"},
        "fail ignored failures=1 successes=0 rate=none",
    ),
    Scenario(
        "resilience4j, documentation of slowCallDurationThreshold: slow is what took longer",
        _TIMED,
        "ok@4*5 slow=0 slow_rate=0.0 =closed ok@4.5 slow=1 =closed",
    ),
    Scenario(
        "resilience4j, CircuitBreakerStateMachine, OPEN: the result of a call let in before is still recorded",
        {"failure_threshold": 1, "reset_timeout": 5},
        "take:a fail =open failures=1 wait:2 a.fail =open failures=1 late=1 no:3",
        "here it is counted as late, and changes no count and no time",
    ),
]

# --- gobreaker --------------------------------------------------------------------------------------------------------

_GO = "gobreaker v2, "
_SIX: dict[str, Any] = {
    "failure_threshold": 6,
    "reset_timeout": 60,
    "half_open_max_calls": 1,
    "half_open_success_threshold": 1,
}
_RATIO: dict[str, Any] = {
    "window": "time",
    "window_duration": 30,
    "minimum_calls": 3,
    "failure_rate_threshold": 0.6,
    "reset_timeout": 90,
    "half_open_max_calls": 3,
    "half_open_success_threshold": 3,
    "ignore": "builtins:LookupError",
}

_GOBREAKER = [
    Scenario(
        _GO + "TestDefaultCircuitBreaker: six in a row open it, a success in between begins anew",
        _SIX,
        "fail*5 =closed failures=5 ok failures=0 fail failures=1 fail*5 =open no*2",
    ),
    Scenario(
        _GO + "TestDefaultCircuitBreaker: open until the time is over",
        _SIX,
        "fail*6 failures=6 wait:59.5 =open no:0.5 wait:1 fail =open no:60 wait:60 ok =closed failures=0",
        "there the state becomes half-open by reading it, and the counts are cleared when it opens; here a call has to"
        " come, and what tripped it stays to be seen",
    ),
    Scenario(
        _GO + "currentState: the time has to be over, not just up",
        _SIX,
        "fail*6 wait:60 =open retry=0 ok =closed",
        "here the first call at that very instant is let in",
    ),
    Scenario(
        _GO + "TestCustomCircuitBreaker: excluded errors count for nothing",
        _RATIO,
        "ok fail ignored ok fail ignored ok fail ignored ok fail ignored ok fail ignored =closed successes=5 failures=5"
        " rate=0.5",
    ),
    Scenario(
        _GO + "TestCustomCircuitBreaker: after the interval",
        _RATIO,
        "ok*5 fail*5 successes=5 failures=5 =closed wait:29.5 ok successes=6 wait:1 fail successes=1 failures=1 =closed"
        " ok =closed failures=1 successes=2 fail =closed rate=0.5 fail =open rate=0.6",
        "there an interval ends for all calls at once; here a window slides, and the last success still stands in it",
    ),
    Scenario(
        _GO + "TestCustomCircuitBreaker: excluded errors while it probes",
        _RATIO,
        "ok fail*2 =open wait:90 ignored*4 =half_open permits=0 well=0 bad=0 fail =open",
    ),
    Scenario(
        _GO + "TestCustomCircuitBreaker: three successes close it",
        _RATIO,
        "ok fail*2 =open wait:90 ok*2 =half_open well=2 take:a permits=1 ok =closed failures=0 a.ok late=1 =closed"
        " successes=0",
        "there the fourth call of a phase is rejected while the third runs; here three may run at one time, and the"
        " success of a fourth closes it",
    ),
    Scenario(
        _GO + "TestRollingWindowCircuitBreaker",
        _RATIO,
        "ok fail ignored ok fail ignored ok fail ignored ok fail ignored ok fail ignored successes=5 failures=5 wait:3"
        " ok successes=6 wait:2 ok ignored successes=7 wait:2 ignored ok successes=8 wait:2 fail failures=6 wait:3 ok"
        " fail wait:3 ok fail wait:3 ok fail wait:3 ok fail wait:3 ok fail wait:3 ok fail successes=14 failures=12"
        " wait:3 fail successes=9 failures=8 fail*5 =closed failures=13 fail =open failures=14 wait:90 ok*2 =half_open"
        " ok =closed successes=0 failures=0",
    ),
    Scenario(
        _GO + "TestPanicInRequest: a panic is a failure",
        _SIX,
        "fail failures=1 cancel failures=1",
        "an exception is a failure; one that is no `Exception`, such as KeyboardInterrupt, says nothing",
    ),
    Scenario(
        _GO + "TestGeneration: a call from before counts for nothing",
        _RATIO,
        "ok take:a successes=1 reset successes=0 a.ok successes=0 late=1 =closed",
        "a generation ends here at each change of state and each reset, not at an interval",
    ),
    Scenario(
        _GO + "TestCustomIsSuccessful: errors can be successes",
        {"failure_threshold": 2, "failure_on": "builtins:OSError"},
        "fail other*5 =closed failures=0 fail*2 =open",
    ),
    Scenario(
        _GO + "TestIsExcludedAndIsSuccessfulCombination",
        {"window": "count", "window_size": 20, "minimum_calls": 20, "ignore": "builtins:LookupError"},
        "ignored*3 failures=0 successes=0 ok*3 successes=3 failures=0 fail*2 successes=3 failures=2",
    ),
    Scenario(
        _GO + "TestTwoStepCircuitBreaker: two in flight, and none more until they end",
        _SIX | {"half_open_max_calls": 2, "half_open_success_threshold": 2, "ignore": "builtins:LookupError"},
        "fail*6 wait:60.5 take:a take:b no no a.free b.free permits=0 ok =half_open fail =open",
    ),
    Scenario(
        _GO + "TestTwoStepCircuitBreaker: two successes close it",
        _SIX | {"half_open_max_calls": 2, "half_open_success_threshold": 2},
        "take:a a.fail take:b b.fail take:c c.ok failures=0 fail*6 =open wait:60 take:d d.ok =half_open take:e e.ok"
        " =closed failures=0",
    ),
    Scenario(
        _GO + "TwoStepCircuitBreaker.Allow: who is let in reports later",
        {"failure_threshold": 2, "reset_timeout": 10, "half_open_success_threshold": 1, "half_open_max_calls": 1},
        "check said.fail check said.fail =open check:no wait:10 check =half_open permits=1 check:no said.ok =closed",
    ),
    Scenario(
        _GO + "MaxRequests of 0 is 1: a single probe at a time",
        {"failure_threshold": 1, "reset_timeout": 10, "half_open_max_calls": 1, "half_open_success_threshold": 2},
        "fail wait:10 take:a no a.ok =half_open take:b no b.ok =closed",
        "there one success closes it then; here as many as `half_open_success_threshold` says",
    ),
]

# --- failsafe-go and failsafe -----------------------------------------------------------------------------------------

_FS = "failsafe-go, "
_ONE: dict[str, Any] = {"failure_threshold": 1, "reset_timeout": 60, "half_open_success_threshold": 1}
_TENTH: dict[str, Any] = {"failure_threshold": 1, "reset_timeout": 0.125, "half_open_success_threshold": 1}


def _of(failures: int, calls: int) -> dict[str, Any]:
    """So many failures among the last so many calls."""
    return {
        "window": "count",
        "window_size": calls,
        "minimum_calls": calls,
        "failure_threshold": failures,
        "failure_rate_threshold": 1.0,
    }


def _probes(successes: int, failures: int) -> dict[str, Any]:
    """So many probes close it, so many open it again."""
    return _ONE | {"half_open_success_threshold": successes, "half_open_failure_threshold": failures}


_HALF = "fail =open wait:60 "
_FAILSAFE = [
    Scenario(_FS + "TestClosedStateFailureWithDefaultConfig", _ONE, "fail =open failures=1"),
    Scenario(
        _FS + "TestClosedStateFailureWithFailureThreshold",
        _ONE | {"failure_threshold": 3},
        "fail ok fail*2 =closed failures=2 fail =open failures=3",
    ),
    Scenario(_FS + "TestClosedStateFailureWithFailureRatio", _of(2, 3), "fail ok =closed fail =open failures=2"),
    Scenario(_FS + "TestClosedStateSuccessWithDefaultConfig", _ONE, "ok =closed failures=0"),
    Scenario(
        _FS + "TestClosedStateSuccessWithFailureRatio", _of(3, 4), "ok fail " * 10 + "=closed failures=2 successes=2"
    ),
    Scenario(
        _FS + "TestClosedStateSuccessWithFailureThreshold",
        _ONE | {"failure_threshold": 2},
        "ok fail " * 10 + "=closed failures=1",
    ),
    Scenario(_FS + "TestHalfOpenStateFailureWithDefaultConfig", _ONE, _HALF + "fail =open bad=1"),
    Scenario(
        _FS + "TestHalfOpenFailureWithFailureThreshold",
        _probes(1, 3),
        _HALF + "fail =half_open fail =half_open fail =open",
    ),
    Scenario(
        _FS + "TestHalfOpenFailureWithFailureRatio", _probes(2, 2), _HALF + "fail ok =half_open bad=1 well=1 fail =open"
    ),
    Scenario(
        _FS + "TestHalfOpenFailureWithSuccessAndFailureThresholds", _probes(3, 1), _HALF + "ok*2 =half_open fail =open"
    ),
    Scenario(
        _FS + "TestHalfOpenFailureWithSuccessAndFailureRatios",
        _probes(3, 2),
        _HALF + "ok fail ok =half_open fail =open",
    ),
    Scenario(_FS + "TestHalfOpenFailureWithSuccessRatio", _probes(2, 2), _HALF + "fail ok =half_open fail =open"),
    Scenario(
        _FS + "TestHalfOpenFailureWithSuccessRatioAndFailureThreshold",
        _probes(2, 3),
        _HALF + "ok fail*2 =half_open fail =open",
    ),
    Scenario(_FS + "TestHalfOpenFailureWithSuccessThreshold", _probes(3, 1), _HALF + "ok fail =open"),
    Scenario(_FS + "TestHalfOpenFailureWithSuccessThresholdAndFailureRatio", _probes(3, 1), _HALF + "fail =open"),
    Scenario(_FS + "TestHalfOpenSuccessWithDefaultConfig", _ONE, _HALF + "ok =closed"),
    Scenario(_FS + "TestHalfOpenSuccessWithFailureRatio", _probes(2, 2), _HALF + "fail ok =half_open ok =closed"),
    Scenario(_FS + "TestHalfOpenSuccessWithFailureThreshold", _probes(1, 3), _HALF + "fail =half_open ok =closed"),
    Scenario(
        _FS + "TestHalfOpenSuccessWithSuccessAndFailureRatios",
        _probes(3, 2),
        _HALF + "ok fail ok =half_open ok =closed",
    ),
    Scenario(
        _FS + "TestHalfOpenSuccessWithSuccessAndFailureThresholds", _probes(3, 2), _HALF + "ok*2 =half_open ok =closed"
    ),
    Scenario(
        _FS + "TestHalfOpenSuccessWithSuccessRatioAndFailureThreshold",
        _probes(3, 2),
        _HALF + "ok*2 fail =half_open well=2 bad=1 ok =closed",
    ),
    Scenario(
        _FS + "TestHalfOpenSuccessWithSuccessThreshold",
        _probes(3, 1),
        _HALF + "ok =half_open ok =half_open well=2 ok =closed",
    ),
    Scenario(
        _FS + "TestHalfOpenSuccessWithSuccessThresholdAndFailureRatio",
        _probes(2, 2),
        _HALF + "ok =half_open ok =closed",
    ),
    Scenario(
        _FS + "TestTryAcquirePermit", _TENTH, "fail =open no wait:0.0625 take:no wait:0.125 take:a =half_open permits=1"
    ),
    Scenario(
        _FS + "TestRemainingDelay", _ONE | {"reset_timeout": 1}, "fail =open retry=1 wait:0.25 retry=0.75 no:0.75"
    ),
    Scenario(_FS + "TestNoRemainingDelay", _TENTH, "retry=0 fail retry=0.125 wait:0.5 =open retry=0"),
    Scenario(
        _FS + "TestRemainingDelayInHalfOpenState",
        _ONE | {"half_open_success_threshold": 2},
        _HALF + "ok =half_open retry=0",
    ),
    Scenario(
        _FS + "TestGetSuccessAndFailureStats",
        _of(5, 10),
        "ok fail ok fail ok fail ok failures=3 successes=4 fail ok*3 fail ok*3 fail ok*3 fail ok*2 failures=2"
        " successes=8 rate=0.2 =closed",
        "there a rate is told from the first call on; here from the minimum on",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should reject initial execution when circuit open",
        _ONE,
        "force_open no:none =forced_open",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should reject excessive attempts when breaker half-open",
        _ONE | {"half_open_success_threshold": 3, "half_open_max_calls": 3},
        _HALF + "take:a take:b take:c no*5 permits=3 =half_open",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should return ErrOpen after failures exceeded",
        {"failure_threshold": 2, "reset_timeout": 10, "failure_if": True},
        "false =closed false =open no:10",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: with rejected retries",
        _ONE | {"failure_threshold": 3},
        "fail*3 no*4 =open failures=3",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should support time based failure threshold",
        {
            "window": "time",
            "window_duration": 2,
            "failure_threshold": 2,
            "reset_timeout": 0,
            "half_open_success_threshold": 1,
            "half_open_failure_threshold": 2,
        },
        "fail ok wait:2.125 failures=0 fail ok wait:0.5 =closed fail =open fail =half_open fail =open fail =half_open"
        " ok =closed",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should support time based failure rate thresholding",
        {
            "window": "time",
            "window_duration": 2,
            "failure_rate_threshold": 0.5,
            "minimum_calls": 3,
            "reset_timeout": 0,
            "half_open_success_threshold": 2,
            "half_open_failure_threshold": 2,
        },
        "fail ok wait:2.125 fail ok wait:0.5 ok =closed rate=0.3333333333333333 fail =open rate=0.5 fail =half_open"
        " fail =open fail =half_open ok ok =closed",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should call OnOpen listener",
        _of(1, 2) | {"minimum_calls": 2},
        "ok fail =open failures=1 successes=1",
    ),
    Scenario(
        _FS + "TestCircuitBreaker: should call OnClose listener",
        _probes(3, 3),
        _HALF + "fail*2 ok*2 =half_open bad=2 well=2 ok =closed",
    ),
    Scenario(
        "failsafe, functional.CircuitBreakerTest.testCircuitBreakerWithoutConditions",
        _ONE | {"reset_timeout": 0},
        "fail =open retry=0 ok =closed",
    ),
    Scenario(
        "failsafe, CircuitBreaker.halfOpen: reports in HALF_OPEN need no permit",
        _ONE | {"half_open_success_threshold": 2},
        _HALF + "check =half_open said.ok well=1 said.ok =half_open well=1 late=1",
        "there every report counts; here one without a token reports for a permit that was taken without one",
    ),
]

# --- Polly v8 ---------------------------------------------------------------------------------------------------------

_PO = "Polly v8, "
_DOCS: dict[str, Any] = {
    "window": "time",
    "window_duration": 10,
    "minimum_calls": 3,
    "failure_rate_threshold": 0.1,
    "reset_timeout": 30,
}
_SINGLE: dict[str, Any] = {
    "failure_threshold": 1,
    "reset_timeout": 5,
    "half_open_max_calls": 1,
    "half_open_success_threshold": 1,
}
_TENTHS: dict[str, Any] = {
    "window": "time",
    "window_duration": 10,
    "minimum_calls": 2,
    "failure_rate_threshold": 1.0,
}

_POLLY = [
    Scenario(_PO + "documentation, Failure handling: three fail, seven are rejected", _DOCS, "fail*3 no*7 =open"),
    Scenario(
        _PO + "documentation, Defaults: below the minimum nothing breaks, even if all fail",
        _DOCS | {"minimum_calls": 10, "failure_rate_threshold": 0.5},
        "fail*9 =closed rate=none wait:10 fail*9 =closed failures=9",
    ),
    Scenario(
        _PO + "AdvancedCircuitBehaviorTests.OnActionFailure_WhenClosed (10 of 10, none failed)",
        _DOCS | {"minimum_calls": 10},
        "ok*10 =closed rate=0.0",
    ),
    Scenario(
        _PO + "AdvancedCircuitBehaviorTests.OnActionFailure_WhenClosed (10 of 10, a tenth failed)",
        _DOCS | {"minimum_calls": 10},
        "ok*9 =closed fail =open rate=0.1 failures=1",
    ),
    Scenario(
        _PO + "AdvancedCircuitBehaviorTests.OnActionFailure_WhenClosed (9 of 10): and a success does not break it",
        _DOCS | {"minimum_calls": 10},
        "fail ok*8 =closed rate=none ok =closed rate=0.1 fail =open failures=2",
    ),
    Scenario(
        _PO + "RollingHealthMetricsTests.GetHealthInfo_EnsureWindowRespected",
        _TENTHS,
        "ok fail wait:2 rate=0.5 ok fail wait:2 rate=0.5 failures=2 ok*2 wait:2 ok*2 wait:2 rate=0.25 failures=2 ok*2"
        " wait:2 rate=0.125 failures=1 wait:2 rate=0.0 failures=0 successes=6",
    ),
    Scenario(
        _PO + "RollingHealthMetricsTests.GetHealthInfo_EnsureWindowCapacityRespected",
        _TENTHS,
        "ok wait:1 " * 10 + "successes=9 wait:1 successes=8",
    ),
    Scenario(
        _PO + "RollingHealthMetricsTests.GetHealthInfo_SamplingDurationRespected",
        _TENTHS,
        "ok*2 successes=2 wait:10 successes=0 rate=none",
    ),
    Scenario(_PO + "RollingHealthMetricsTests.Reset_Ok", _TENTHS, "ok successes=1 reset successes=0"),
    Scenario(
        _PO + "CircuitStateControllerTests.HalfOpen_EnsureCorrectStateTransitionAfterExecution (success)",
        _SINGLE,
        "fail =open wait:5 ok =closed",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.HalfOpen_EnsureCorrectStateTransitionAfterExecution (failure)",
        _SINGLE,
        "fail =open wait:5 fail =open no:5",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.OnActionPreExecute_HalfOpen: a second call while one probes",
        _SINGLE | {"permit_timeout": 8},
        "fail wait:5 take:a no:8 =half_open wait:5 no:3 wait:3 take:b",
        "there another probe is let in when the break duration has passed again; here when the permit runs out",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.IsolateAsync_Ok",
        _SINGLE,
        "force_open =forced_open no:none close =closed ok",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.OnActionSuccess_EnsureCorrectBehavior (isolated)",
        _SINGLE,
        "take:a force_open a.ok =forced_open late=1",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.OnActionFailureAsync_EnsureCorrectBehavior (isolated)",
        _SINGLE,
        "take:a force_open a.fail =forced_open late=1 failures=0",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.OnActionFailureAsync_EnsureCorrectBehavior (open)",
        _SINGLE,
        "take:a fail =open wait:3 a.fail =open retry=2 late=1",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.Flow_Closed_HalfOpen_Open_HalfOpen_Closed",
        _SINGLE,
        "fail wait:5 fail =open wait:0.125 no:4.875 wait:10 ok =closed",
    ),
    Scenario(
        _PO + "CircuitStateControllerTests.BreakDurationGenerator_EnsureHalfOpenAttempts",
        _SINGLE | {"reset_timeout": 1, "reset_timeout_backoff": 2.0},
        "fail no:1 wait:1 fail no:2 wait:2 fail no:4 wait:4 fail no:8 wait:8 ok =closed fail no:1 wait:1 fail no:2",
    ),
    Scenario(
        _PO + "documentation, Defaults of ShouldHandle: a cancellation is no failure",
        _SINGLE,
        "cancel =closed failures=0 fail wait:5 cancel =half_open permits=0 ok =closed",
        "there what is not handled is a success, and a cancelled probe closes it; here it says nothing",
    ),
    Scenario(
        _PO + "documentation, ManualControl: closing by hand ends a break",
        _SINGLE,
        "fail =open close =closed failures=0 ok =closed",
    ),
]

SCENARIOS = [*_RESILIENCE4J, *_GOBREAKER, *_FAILSAFE, *_POLLY]
