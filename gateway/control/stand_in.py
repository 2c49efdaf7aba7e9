"""Which version answers where the one that is decided to answer cannot be loaded."""

from gateway.control.repository import ModelSource, version_key
from gateway.control.traffic import LATEST, ModelTraffic


def stand_ins(source: ModelSource, traffic: ModelTraffic) -> list[str]:
    """The versions that may answer in the place of the stable one, the best first.

    Those that were stable before it, and those below it; where the latest version is stable, the
    next lower one goes first. None is above it: nobody has decided about those. A version policy
    that names its versions is kept to.
    """
    meant = traffic.stable
    if meant == LATEST:
        meant = max(source.versions, key=version_key, default="")
    allowed = source.versions if source.settings.version_policy.specific else source.found
    lower = [v for v in reversed(source.found) if version_key(v) < version_key(meant)]
    lower = [version for version in lower if version in allowed]
    previous = [version for version in traffic.previous if version in source.found]
    ordered = [*lower, *previous] if traffic.stable == LATEST else [*previous, *lower]
    return [version for version in dict.fromkeys(ordered) if version != meant]
