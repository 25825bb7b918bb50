"""Which machines shall wait for pods, how many of each, and what they may cost: the settings of the pool, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kata_caa.errors import SettingError
from kata_caa.providers.api import InstanceSpec

COUNT_MAX = 100
DEFAULT = "default"  # in the place of a type: what a pod gets that asks for nothing
_FLAG = "-warm-pool"
_SIZE = re.compile(r"(\d{1,4})x(\d{1,8})")


@dataclass(frozen=True, slots=True)
class Wish:
    """Machines of one kind.

    Attributes:
        name: As it was set, for people.
        spec: What a pod asks for that gets one.
        count: How many shall wait.
    """

    name: str
    spec: InstanceSpec
    count: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What all machines that wait may cost.

    Attributes:
        limit: In an hour, in the currency of the prices; 0 is no bound.
        prices: Of an hour of each type.
    """

    limit: float = 0.0
    prices: Mapping[str, float] | None = None

    def price(self, instance_type: str) -> float:
        """What an hour of a machine costs; of a cloud without types, what `default` does. Unknown costs nothing."""
        return (self.prices or {}).get(instance_type or DEFAULT, 0.0)

    def allows(self, spent: float, instance_type: str) -> bool:
        """Whether one more machine may wait, beside others that cost so much already."""
        return not self.limit or spent + self.price(instance_type) <= self.limit + 1e-9  # sums of decimal fractions

    def require(self, instance_type: str) -> None:
        """See that the price of a type is known, where there is a bound.

        Raises:
            SettingError: It is not: the bound would be none.
        """
        if self.limit and (instance_type or DEFAULT) not in (self.prices or {}):
            raise SettingError(
                f"-warm-pool-budget: the price of {instance_type or DEFAULT} is not known; "
                f'write "{instance_type or DEFAULT}" = 0.0864 in the file that -warm-pool-prices names'
            )


def wishes(settings: Sequence[tuple[str, str]], *, multi_nic: bool) -> tuple[Wish, ...]:
    """Read the setting: a machine's kind and how many, `m6a.large=2`.

    A kind is what a pod's annotations ask for: a type, or processors and MiB of memory as `2x4096`, or `default` for
    pods that ask for nothing; and, after `@`, an image in the place of the configured one.

    Args:
        settings: The pairs.
        multi_nic: Whether pods' machines have a second interface.

    Raises:
        SettingError: A kind or a number cannot be understood, or a kind comes twice.
    """
    found: dict[str, Wish] = {}
    for name, text in settings:
        if name in found:
            raise SettingError(f"{_FLAG}: {name} comes twice")
        if not text.isascii() or not text.isdigit() or not 0 < int(text) <= COUNT_MAX:
            raise SettingError(f"{_FLAG}: {name}={text}: a number from 1 to {COUNT_MAX} is wanted")
        found[name] = Wish(name, replace(_spec(name), multi_nic=multi_nic), int(text))
    return tuple(found.values())


def kind_of(spec: InstanceSpec) -> str:
    """What a pod asks for, or a machine is, as the setting has it."""
    size = f"{spec.vcpus}x{spec.memory}" if spec.vcpus or spec.memory else DEFAULT
    return f"{spec.instance_type or size}{f'@{spec.image}' if spec.image else ''}"


def _spec(name: str) -> InstanceSpec:
    kind, at, image = name.partition("@")
    if not kind or (at and not image):
        raise SettingError(f"{_FLAG}: {name!r} is not TYPE, CPUSxMEMORY or {DEFAULT}, with @IMAGE or without")
    if kind == DEFAULT:
        return InstanceSpec(image=image)
    if size := _SIZE.fullmatch(kind):
        return InstanceSpec(vcpus=int(size[1]), memory=int(size[2]), image=image)
    return InstanceSpec(instance_type=kind, image=image)
