"""Settings of what is kept of sessions and told of them: traces, recordings, use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from server.config.strict import Strict


class TelemetrySettings(Strict):
    """Where traces of sessions go; see docs/operations.md.

    Attributes:
        traces: whether spans are made, and sent by OTLP over HTTP. What is not said here is as the
            environment says (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
            `OTEL_TRACES_SAMPLER` and so on), and else as OpenTelemetry has it.
        endpoint: URL that takes traces, such as `http://127.0.0.1:4318/v1/traces`.
        headers: that are sent with them.
        max_queue: spans that may wait for the collector; more are dropped and counted.
        parts_in_responses: whether `response.done` says in its metadata what the reply's first
            audio took, in parts.
    """

    traces: bool = False
    endpoint: Annotated[str, Field(pattern=r"^https?://")] | None = None
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    # Some ten spans a turn: this is a minute of thirty callers.
    max_queue: Annotated[int, Field(ge=16, le=1_000_000)] = 4_096
    parts_in_responses: bool = False


class S3Settings(Strict):
    """An S3-compatible store. Credentials are found as boto3 finds them.

    Attributes:
        bucket: that recordings go into; empty for none.
        prefix: of their keys.
        endpoint_url: where the store is, if it is not Amazon's.
        region: of the bucket.
    """

    bucket: str = ""
    prefix: str = ""
    endpoint_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    region: str | None = None


class RecordingSettings(Strict):
    """Recordings of sessions whose clients consent; see docs/operations.md.

    Attributes:
        enabled: whether clients may consent. Without their consent nothing is recorded.
        dir: folder that recordings are kept in; with a store, where they wait to go there.
        s3: a store that they go to once they are finished.
        format: of the sound.
        keep_days: after which a recording is deleted; 0 for never.
        max_bytes: of all that are kept; past it the oldest are deleted. 0 for no limit.
        max_minutes: of one recording; what comes after is not recorded.
        max_waiting_bytes: that may wait for the disk; more is left out, and counted.
    """

    enabled: bool = False
    dir: Path = Path("runs/recordings")
    s3: S3Settings = S3Settings()
    format: Literal["flac", "wav"] = "flac"
    keep_days: Annotated[float, Field(ge=0)] = 30.0
    max_bytes: Annotated[int, Field(ge=0)] = 0
    # A WAV file counts its bytes in 32 bits: 4 GiB are 12 hours of stereo at 24 kHz.
    max_minutes: Annotated[float, Field(gt=0, le=700)] = 240.0
    max_waiting_bytes: Annotated[int, Field(ge=1_048_576)] = 64 * 1_024 * 1_024


class UsageSettings(Strict):
    """Where it is written down what is used; see docs/deploy.md.

    Attributes:
        ledger: file to which a line is added for what each session used, by API key and model; None
            for none. It is for one server alone.
        flush_s: how often: what is lost with a process that is killed. What a response cost is
            written within a fifth of a second after its end.
        ledger_bytes: size at which the file is put aside, and a new one begun. None is ever
            removed.
    """

    ledger: Path | None = None
    flush_s: Annotated[float, Field(ge=0.2, le=3_600)] = 5.0
    # Some 300,000 lines.
    ledger_bytes: Annotated[int, Field(ge=1_024)] = 64 << 20
