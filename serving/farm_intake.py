"""Farms as they were sent, each made a draft by the rules of the import or told what is wrong with it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from models.domain import FarmDraft
from models.errors import BadInput
from models.farm_sync import Outcome, Synced
from serving.farm_models import MOST_FARMS, FarmIn
from serving.faults import ApiError, FieldError, from_validation, invalid
from serving.geometry import BoundaryChecker, Checked

Model = TypeVar("Model")

_FARM = TypeAdapter(FarmIn)


@dataclass(slots=True)
class Given:
    """One farm that was sent."""

    at: str
    """Where in the request it was, for messages."""
    raw: object
    farm: FarmIn | None = None
    draft: FarmDraft | None = None
    repairs: tuple[str, ...] = ()
    errors: list[FieldError] = field(default_factory=list)

    def drafted(self, farm: FarmIn, checked: Checked) -> FarmDraft:
        """The farm as it is to be stored."""
        return FarmDraft(
            external_farm_id=farm.external_farm_id,
            name=farm.name,
            external_user_id=farm.external_user_id,
            boundary=checked.wkb,
            bbox=checked.bbox,
            area_ha=checked.area_ha,
            feature=self.at,
            repairs=checked.repairs,
            is_active=farm.is_active,
        )

    def outcome(self, synced: Mapping[uuid.UUID, Synced]) -> dict[str, Any]:
        """What became of it, as `FarmOutcome` has it."""
        told = synced.get(self.draft.external_farm_id) if self.draft is not None else None
        errors, code = list(self.errors), "invalid"
        if told is not None and told.outcome is Outcome.CONFLICT:
            problem, allowed, code = "is taken", "an id of your own, such as a random UUID", "conflict"
            errors.append(FieldError(f"{self.at}.external_farm_id", problem, allowed))
        return {
            "external_farm_id": self.farm.external_farm_id if self.farm is not None else None,
            "outcome": "rejected" if told is None else told.outcome.value,
            "is_active": told.is_active if told is not None else None,
            "boundary_version": told.boundary_version if told is not None else None,
            "repairs": self.repairs,
            "errors": [{"code": code, **asdict(error)} for error in errors],
        }


def given_farms(body: object) -> list[Given]:
    """Take apart the body of a sync: one farm, a list of farms, or a list under `farms`.

    Raises:
        ApiError: 422, the list is empty or too long, or has unknown company.
    """
    if isinstance(body, dict) and "farms" in body:
        others = [FieldError(f"body.{name}", "is not a known field") for name in body if name != "farms"]
        if others:
            raise invalid(others[:10])
        at, farms = "body.farms", body["farms"]
    elif isinstance(body, list):
        at, farms = "body", body
    else:
        return [Given("body", body)]
    if not isinstance(farms, list) or not 1 <= len(farms) <= MOST_FARMS:
        problem = f"has {len(farms):,} farms" if isinstance(farms, list) else "is not a list"
        raise invalid([FieldError(at, problem, f"a list of 1 to {MOST_FARMS:,} farms")])
    return [Given(f"{at}[{number}]", farm) for number, farm in enumerate(farms)]


async def check_farms(given: Sequence[Given], checker: BoundaryChecker) -> None:
    """Make a draft of each farm, or note what is wrong with it.

    Raises:
        ApiError: 503, boundaries cannot be checked at the moment.
    """
    for number, each in enumerate(given):
        if number % 100 == 99:
            await asyncio.sleep(0)  # others have a turn
        try:
            each.farm = _FARM.validate_python(each.raw)
        except ValidationError as error:
            each.errors = [_moved(fault, each.at) for fault in from_validation(error, "body").errors]
    _refuse_doubles(given)
    sound = [(each, each.farm) for each in given if each.farm is not None and not each.errors]
    for (each, farm), told in zip(sound, await checker.check([farm.drawn() for _, farm in sound]), strict=True):
        if isinstance(told, BadInput):
            each.errors.append(FieldError(f"{each.at}.{told.field}", told.problem, told.allowed))
        else:
            each.draft, each.repairs = each.drafted(farm, told), told.repairs


def _refuse_doubles(given: Sequence[Given]) -> None:
    """Refuse farms that are given more than once, all of them: which one was meant is not ours to guess."""
    by_id: dict[Any, list[Given]] = {}
    for each in given:
        if each.farm is not None:
            by_id.setdefault(each.farm.external_farm_id, []).append(each)
    for same in by_id.values():
        for each in same if len(same) > 1 else ():
            other = next(one for one in same if one is not each)
            problem = f"is also the id of {other.at}"
            each.errors.append(FieldError(f"{each.at}.external_farm_id", problem, "each farm once"))


def _moved(error: FieldError, at: str) -> FieldError:
    return FieldError(at + error.field.removeprefix("body"), error.problem, error.allowed)


async def checked_boundary(drawn: dict[str, Any], checker: BoundaryChecker) -> Checked:
    """Check one boundary.

    Raises:
        ApiError: 422, naming what is wrong; 503, it cannot be checked at the moment.
    """
    [told] = await checker.check([drawn])
    if isinstance(told, BadInput):
        raise invalid([FieldError(f"body.{told.field}", told.problem, told.allowed)])
    return told


def refusal(given: Sequence[Given]) -> ApiError:
    """The answer to farms of which each is wrong."""
    return invalid([error for each in given for error in each.errors])
