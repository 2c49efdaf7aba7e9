"""Any traffic, any plan, any declaration: what properties are tested over."""

from hypothesis import strategies as st

from gateway.control.declaration import Declared
from gateway.control.journal import Event
from gateway.control.traffic import (
    LATEST,
    Canary,
    CanaryGates,
    CanaryPhase,
    CanaryPlan,
    CanaryStep,
    ModelTraffic,
    ShadowPlan,
)

#: Few, so that what is declared often is what there is.
VERSIONS = st.sampled_from(("1", "2", "3"))
LABELS = st.dictionaries(st.sampled_from(("champion", "günstig", "a.b")), VERSIONS, max_size=2)

PLANS = st.builds(
    CanaryPlan,
    version=VERSIONS,
    steps=st.lists(st.sampled_from((1.0, 5.0, 50.5, 100.0)), min_size=1, unique=True).map(
        lambda shares: tuple(CanaryStep(percent=share) for share in sorted(shares))
    ),
    sticky_header=st.sampled_from(("", "x-user-id")),
    auto_promote=st.booleans(),
    gates=st.builds(CanaryGates, max_error_increase=st.sampled_from((0.01, 0.005))),
)
CANARIES = st.builds(
    Canary,
    plan=PLANS,
    phase=st.sampled_from(CanaryPhase),
    reason=st.sampled_from(("", "errors: 3% more")),
)
SHADOWS = st.builds(
    ShadowPlan,
    version=VERSIONS,
    model=st.sampled_from(("", "other")),
    percent=st.sampled_from((10.0, 100.0)),
)
TRAFFICS = st.builds(
    ModelTraffic,
    stable=VERSIONS | st.just(LATEST),
    previous=st.lists(VERSIONS, unique=True).map(tuple),
    labels=LABELS,
    canary=st.none() | CANARIES,
    shadow=st.none() | SHADOWS,
    loaded=st.none() | st.booleans(),
)
DECLARED = st.builds(
    Declared,
    stable=st.none() | VERSIONS | st.just(LATEST),
    labels=LABELS,
    canary=st.none() | PLANS,
    shadow=st.none() | SHADOWS,
)

#: Anything that JSON can say; text may be half a surrogate pair, as JSON from outside may hold it.
JSON_TEXT = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_TEXT, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.none() | st.dictionaries(JSON_TEXT, JSON, max_size=4)
EVENTS = st.builds(
    Event,
    by=JSON_TEXT,
    verb=st.sampled_from(("promote", "canary_step")),
    model=st.sampled_from(("iris", "größe")),
    version=JSON_TEXT,
    outcome=st.sampled_from(("ok", "refused", "failed")),
    reason=JSON_TEXT,
    digest=st.just("") | st.just("ab" * 32),
    before=TABLES,
    after=TABLES,
    evidence=TABLES,
)
