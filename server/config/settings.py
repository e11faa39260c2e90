"""All settings in one value."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from server.config.delegate import DelegateSettings
from server.config.filters import FilterSettings
from server.config.images import ImageSettings
from server.config.models import (
    EngineSettings,
    ModelName,
    ModelSettings,
    ModelSource,
    ServedSettings,
)
from server.config.prompts import PromptSettings
from server.config.records import RecordingSettings, TelemetrySettings, UsageSettings
from server.config.server import ResumeSettings, ServerSettings, is_loopback
from server.config.sound import AudioSettings, VadSettings
from server.config.strict import Strict
from server.config.telephony import TelephonySettings
from server.config.tools import ApprovalSettings, McpSettings, ToolSettings
from server.config.webrtc import WebRtcSettings


class Settings(Strict):
    """Everything that can be configured.

    Attributes:
        voices: names that clients may ask for → voices of the engine. Empty: the engine's own
            names. The first is the default.
        models: name → model, where one server has several, in place of `model`, `engine` and
            `voices`. The first serves who names none.
        prompts: id → prompt that clients may name.
    """

    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    voices: Mapping[str, str] = Field(default_factory=dict)
    vad: VadSettings = VadSettings()
    audio: AudioSettings = AudioSettings()
    images: ImageSettings = ImageSettings()
    webrtc: WebRtcSettings = WebRtcSettings()
    mcp: McpSettings = McpSettings()
    tools: ToolSettings = ToolSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    delegate: DelegateSettings = DelegateSettings()
    prompts: Mapping[str, PromptSettings] = Field(default_factory=dict)
    filters: FilterSettings = FilterSettings()
    telephony: TelephonySettings = TelephonySettings()
    resume: ResumeSettings = ResumeSettings()
    models: Mapping[ModelName, ServedSettings] = Field(default_factory=dict)
    usage: UsageSettings = UsageSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    recordings: RecordingSettings = RecordingSettings()

    @model_validator(mode="after")
    def _keys_where_calls_come(self) -> "Settings":
        # A provider reaches the server from the internet, and so does everybody else then.
        telephony = self.telephony
        host = urlsplit(telephony.public_url or "").hostname or ""
        if telephony.is_on and not self.server.has_keys and not is_loopback(host):
            raise ValueError(
                f"telephony.public_url {telephony.public_url!r} is reached by others, and there "
                "are no API keys: set server.api_keys"
            )
        return self

    @model_validator(mode="after")
    def _one_model_or_several(self) -> "Settings":
        if not self.models:
            return self
        if twice := {"model", "engine", "voices"} & self.model_fields_set:
            raise ValueError(
                f"{min(twice)} is for a server with one model, and there is a section models: each "
                "of these has an engine and voices of its own"
            )
        names = [*self.models, *(name for each in self.models.values() for name in each.aliases)]
        if shared := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"models: {min(shared)!r} is the name of two of them")
        serving = [name for name, each in self.models.items() if each.other_names == "serve"]
        if len(serving) > 1:
            raise ValueError(f"models: {', '.join(serving)}: only one can have other_names: serve")
        return self

    @property
    def each_model(self) -> "tuple[Settings, ...]":
        """Return the settings as each model's engine sees them: it is the only one in them."""
        # So there is one way to serve a model, however many there are.
        return tuple(self._of_one(name, each) for name, each in self.models.items()) or (self,)

    def _of_one(self, name: str, served: ServedSettings) -> "Settings":
        source = {key: getattr(served, key) for key in ModelSource.model_fields}
        model = ModelSettings(name=name, other_names=served.other_names, **source)
        alone = {"model": model, "engine": served.engine, "voices": served.voices, "models": {}}
        return self.model_copy(update=alone)
