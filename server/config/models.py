"""Settings of models and of the engines that they run in."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from model.engine.config import EngineConfig
from model.family import ServedKind
from model.precision import Linears, Precision
from server.config.strict import Strict

_CORE = EngineConfig()
# In addresses, in metrics and in the accounts of use.
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+-]{1,100}$")]
OtherNames: TypeAlias = Literal["serve", "refuse"]


class ModelSource(Strict):
    """Where a model comes from, and its other names.

    Attributes:
        aliases: other names that it answers to; a session says the one that its client asked for.
        dir: folder of its weights: a starter, or a checkpoint of the Kyutai family.
        script: file that the scripted engine follows in place of any weights, for tests of
            applications; see docs/scripted.md.
        twin: a model whose random stand-in is made in place of any weights; see docs/duplex.md.
        guidance: of Hibiki, how far to go towards what a good translation is like; 1 is as far as
            the model says. More doubles the work and the memory of a session.
    """

    aliases: tuple[str, ...] = ()
    dir: Path = Path("model/starter")
    script: Path | None = None
    twin: ServedKind | None = None
    guidance: Annotated[float, Field(ge=0)] = 1.0


class ModelSettings(ModelSource):
    """Which model is served, where it is the only one.

    Attributes:
        name: what clients call it.
        other_names: how to answer a client that asks for any other name: "serve" it, where its
            session tells the model's own name, or "refuse" it (`model_not_found`).
    """

    name: str = "starter"
    other_names: OtherNames = "serve"


class EngineSettings(Strict):
    """How much the engine takes on, and where it runs.

    What is not said here is as in `model.engine.config.EngineConfig`, defaults included.

    Attributes:
        placement: "process" gives the engine a process of its own, which is started again when it
            dies: calls go on. "thread" keeps it in the gateway's, which is enough for a script or
            a test.
        max_sessions: sessions that may be open at once, on each device; one more is refused with
            HTTP 503 and `rate_limit_exceeded`. Left out, it is what `parley capacity` found on this
            machine, and the default where it never ran.
        linears: how the language model's linears are kept: "dense" (fp32), "nf4" (packed, as in
            the file), "bitsandbytes" (the same, multiplied by that package's kernels in place of
            ours) or "int8" (half of bf16, and the fastest on a CPU).
        dtype: of the other weights of a model of the Kyutai family, and of what it remembers.
        device: where such a model runs, as PyTorch names it: "cpu", "cuda" or "cuda:1".
        devices: several of these, in place of `device`: one engine runs on each, and a session goes
            to the one with the most free slots. A device may stand there twice.
        kv: how what a session remembers is kept: "full", or "int8" in a quarter of the memory.
        hang_s: how long one piece of the engine's work may take: after that its process hangs, and
            is replaced. More for a model that is too slow for its machine.
        loading_s: the same for loading a model and warming it up.
    """

    placement: Literal["process", "thread"] = "process"
    max_sessions: Annotated[int, Field(ge=1)] = _CORE.max_sessions
    max_batch: Annotated[int, Field(ge=1)] = _CORE.max_batch
    ahead_ms: Annotated[int, Field(ge=1)] = _CORE.ahead_ms
    num_threads: Annotated[int, Field(ge=1)] = _CORE.num_threads
    seed: int = _CORE.seed
    linears: Linears = _CORE.linears
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(min_length=1)] = "cpu"
    devices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    kv: Precision = _CORE.kv
    kv_pages: Annotated[int, Field(ge=1)] | None = _CORE.kv_pages
    cached_prompts: Annotated[int, Field(ge=0)] = _CORE.cached_prompts
    # A tick takes less than a frame of 80 ms, or calls stutter. What takes 10 s will not end.
    hang_s: Annotated[float, Field(ge=3)] = 10.0
    # 15 GB from a slow network disk of 10 MB/s are 25 minutes.
    loading_s: Annotated[float, Field(ge=10)] = 1_800.0

    @property
    def core(self) -> EngineConfig:
        """Return what of it concerns the engine's core, wherever that runs."""
        # By name, so that a setting is declared once there and once here, and copied nowhere.
        shared = type(self).model_fields.keys() & {field.name for field in fields(EngineConfig)}
        return EngineConfig(**self.model_dump(include=shared))

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> "EngineSettings":
        if self.devices and "device" in self.model_fields_set:
            raise ValueError("device and devices are two ways to say it: give one")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """Return the device of each engine."""
        return self.devices or (self.device,)


class ServedSettings(ModelSource):
    """One of several models; see docs/deploy.md.

    Attributes:
        other_names: "serve" for at most one of them: it also serves who asks for a name that no
            model has, and its session says the model's own name. Where every model has "refuse",
            such a client is told `model_not_found`.
        engine: how much it takes on, and where it runs, as the section `engine`.
        voices: names that its clients may ask for, as the section `voices`.
    """

    other_names: OtherNames = "refuse"
    engine: EngineSettings = EngineSettings()
    voices: Mapping[str, str] = Field(default_factory=dict)
