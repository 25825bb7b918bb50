"""Which type of machine a pod gets, and what is tried in its place. Pure; for every cloud that has types.

Source: cloud-api-adaptor `src/cloud-providers/util.go` and `docs/instance-selection.md`. Where upstream searches a
sorted list by halves, though its condition is not monotonic, the smallest type that fits is taken here. What is tried
when the cloud has no machine left of that type is an extension of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kata_caa.errors import Fault, ProviderError, SettingError
from kata_caa.providers.api import InstanceSpec


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A type (AWS) or size (Azure) of machines.

    Attributes:
        name: The cloud's.
        vcpus: Virtual processors.
        memory: MiB.
        gpus: Graphics processors.
        price: Of an hour, in any one currency; decides between types that are otherwise alike.
    """

    name: str
    vcpus: int
    memory: int
    gpus: int = 0
    price: float | None = None

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        return f"{self.name} ({self.vcpus} vCPUs, {self.memory} MiB{gpus})"


class Spot(enum.Enum):
    """Whether machines are taken from what the cloud has left over, cheaper, and may take back: `USE_SPOT`."""

    NO = "no"
    PREFER = "prefer"
    ONLY = "only"

    @classmethod
    def parse(cls, text: str, name: str) -> Spot:
        """What a setting says.

        Args:
            text: Its value; empty is `no`.
            name: The setting's.

        Raises:
            SettingError: It is none of the three.
        """
        try:
            return cls(text.strip().lower() or "no")
        except ValueError as error:
            raise SettingError(f"{name}: {text!r} is none of no, prefer, only") from error


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to get a machine.

    Attributes:
        instance_type: The type's name.
        place: A subnet or zone; empty leaves it to the cloud.
        spot: Whether as a spot machine.
    """

    instance_type: str
    place: str = ""
    spot: bool = False

    def __str__(self) -> str:
        return f"{self.instance_type}{f' in {self.place}' if self.place else ''}{' (spot)' if self.spot else ''}"


def choose(spec: InstanceSpec, types: Sequence[InstanceType], default: str, allowed: Sequence[str]) -> InstanceType:
    """The type that a pod gets.

    A type that the pod names comes first. Then, if it asks for GPUs, or for both processors and memory, the smallest
    that has them, by GPUs, memory and processors in this order; types with GPUs are for those who ask for GPUs. Then
    the default, which need not be in the list.

    Args:
        spec: What the pod asks for.
        types: What is known of the allowed types and of the default.
        default: Its type's name.
        allowed: The names that may be taken; empty allows the default alone.

    Raises:
        ProviderError: The type is not allowed, or none is large enough.
    """
    names = frozenset(allowed or (default,))
    if spec.instance_type:
        _permit(spec.instance_type, default, allowed)
        return _known(spec.instance_type, types)
    if spec.gpus > 0 or (spec.vcpus and spec.memory):
        return _smallest(spec, [type for type in types if type.name in names])
    return _known(default, types)


def fits(type: InstanceType, spec: InstanceSpec) -> bool:
    """Whether a type has what is asked for. Types with GPUs are for those who ask for GPUs."""
    gpus = type.gpus >= spec.gpus if spec.gpus else type.gpus == 0
    return gpus and type.memory >= spec.memory and type.vcpus >= spec.vcpus


def fallbacks(
    chosen: InstanceType, spec: InstanceSpec, types: Sequence[InstanceType], names: Sequence[str]
) -> tuple[InstanceType, ...]:
    """The types that may stand in for the chosen one, in the order of their names' list.

    They need not be allowed to pods: the list is the operator's word. But a pod never gets less than it asked for:
    they fit the spec, and where the pod named its type, they are in nothing smaller than that.

    Args:
        chosen: The type the pod should get.
        spec: What it asked for.
        types: What is known of the types in the list.
        names: The list, `PODVM_FALLBACK_INSTANCE_TYPES`.
    """
    least = spec
    if spec.instance_type:
        least = InstanceSpec(
            vcpus=max(spec.vcpus, chosen.vcpus),
            memory=max(spec.memory, chosen.memory),
            gpus=max(spec.gpus, chosen.gpus),
        )
    known = {type.name: type for type in types}
    wanted = [known[name] for name in dict.fromkeys(names) if name in known and name != chosen.name]
    return tuple(type for type in wanted if fits(type, least))


def candidates(names: Sequence[str], places: Sequence[str], spot: Spot) -> Iterator[Candidate]:
    """All ways to get a machine, in the order in which they are tried.

    The type changes last, as the pod is sized for the first; a spot machine is looked for in every place before a
    machine at full price is, as places are alike to a pod and prices are not to whoever pays.

    Args:
        names: Types, the chosen one first.
        places: Subnets or zones in their order; none leaves it to the cloud.
        spot: Whether spot machines are wanted.
    """
    markets = {Spot.NO: (False,), Spot.PREFER: (True, False), Spot.ONLY: (True,)}[spot]
    for name in names:
        for market in markets:
            for place in places or ("",):
                yield Candidate(name, place, market)


def exhausted(refused: Sequence[tuple[Candidate, ProviderError]]) -> ProviderError:
    """What is to be said when the cloud had no machine by any way: a used-up quota before want of capacity, as
    somebody can do something about it.

    Args:
        refused: What was tried, and what the cloud said; of want of capacity and of quotas alone, and not empty.
    """
    quotas = [error for _, error in refused if error.fault is Fault.QUOTA]
    last = quotas[0] if quotas else refused[-1][1]
    if len(refused) == 1:
        return last
    tried = "; ".join(f"{way}: {error.code or error.fault.value}" for way, error in refused)
    return ProviderError(last.fault, f"{last.cause}; tried {tried}", code=last.code, hint=last.hint)


def _permit(name: str, default: str, allowed: Sequence[str]) -> None:
    if not allowed and name != default:
        raise ProviderError(
            Fault.FATAL,
            f'requested instance type ("{name}") is not default ("{default}")'
            " and supported instance types list is empty",
        )
    if allowed and name not in allowed:
        raise ProviderError(
            Fault.FATAL,
            f'requested instance type ("{name}") is not part of supported instance types list',
            hint=f"there is: {', '.join(allowed)}",
        )


def _known(name: str, types: Sequence[InstanceType]) -> InstanceType:
    for type in types:
        if type.name == name:
            return type
    raise ProviderError(Fault.FATAL, f'nothing is known of instance type "{name}"')


def _smallest(spec: InstanceSpec, types: Sequence[InstanceType]) -> InstanceType:
    fitting = [type for type in types if fits(type, spec)]
    if not fitting:
        there = ", ".join(str(type) for type in sorted(types, key=_size)) or "none"
        raise ProviderError(
            Fault.FATAL, f"no instance type found for the given {_wish(spec)}", hint=f"there is: {there}"
        )
    return min(fitting, key=_size)


def _wish(spec: InstanceSpec) -> str:
    if spec.gpus:
        return f"GPUs ({spec.gpus}), vCPUs ({spec.vcpus}), and memory ({spec.memory})"
    return f"vcpus ({spec.vcpus}) and memory ({spec.memory})"


def _size(type: InstanceType) -> tuple[int, int, int, float, str]:
    return type.gpus, type.memory, type.vcpus, float("inf") if type.price is None else type.price, type.name
