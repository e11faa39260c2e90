"""Parley under Ray Serve: one server a replica, a session stays with the replica that took it.

    serve run deploy.ray.app:build config=configs/moshi.yaml max_replicas=8

from the checkout, which has to be on every node (or in the image of its pods). A WebSocket is one
ongoing request to Ray Serve for as long as it lives, so Serve's own counting is ours: it sends a
new session to a replica with few, and adds replicas by sessions and places. Calls over WebRTC need
UDP to the process that has the session, and Serve has none: they are off. docs/deploy.md tells what
was tried.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application

from model.heap import give_memory_back, share_arenas
from server.app import create_app
from server.capacity.admission import session_bound, with_bounds
from server.capacity.record import this_machine
from server.config.load import load_settings
from server.config.settings import Settings
from server.engine import make_engines
from server.logs import set_up_logging
from server.names import ROOT
from server.process import raise_descriptor_limit
from server.session.link import LinkState

# Requests that are no sessions, such as those for keys, have room beside a full replica's sessions.
# The session that is one too many is then refused by Parley, with its reason, and does not wait in
# a queue.
_OTHER_REQUESTS = 16


class Arguments(BaseModel, extra="forbid"):
    """What `serve run` and the `args` of a Serve config take.

    Attributes:
        config: file with settings, seen from the checkout.
        set: more settings, `a.b=c` each.
        min_replicas: that there are always.
        max_replicas: that there are at most.
        load: sessions ÷ places that Serve keeps to, by adding replicas and taking them away.
        drain_s: how long a replica that is to go may go on with its sessions; left out,
            `server.drain_s`.
        num_cpus: that Ray keeps for a replica.
        num_gpus: the same; left out, as many as the settings name. A replica sees its own as
            `cuda:0`, `cuda:1`.
    """

    config: str = "configs/starter.yaml"
    set: list[str] = []
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1)
    load: float = Field(default=0.7, gt=0, le=1)
    drain_s: float | None = Field(default=None, ge=0)
    num_cpus: float = Field(default=1, gt=0)
    num_gpus: float | None = Field(default=None, ge=0)


def build(arguments: Arguments) -> Application:
    """Return the application that Ray Serve runs."""
    settings = _settings(arguments)
    engines = [each.engine for each in settings.each_model]
    places = sum(engine.max_sessions * len(engine.places) for engine in engines)
    devices = {"cuda:0" if name == "cuda" else name for each in engines for name in each.places}
    gpus = float(sum(name.startswith("cuda") for name in devices))
    return (
        serve.deployment(serve.ingress()(Replica))
        .options(
            name="parley",
            max_ongoing_requests=places + _OTHER_REQUESTS,
            ray_actor_options={
                "num_cpus": arguments.num_cpus,
                "num_gpus": gpus if arguments.num_gpus is None else arguments.num_gpus,
            },
            autoscaling_config={
                "min_replicas": arguments.min_replicas,
                "max_replicas": arguments.max_replicas,
                # For example 8 places and a load of 0.7: 12 sessions are 12 / 5.6, so 3 replicas.
                "target_ongoing_requests": max(1.0, arguments.load * places),
                "look_back_period_s": 15,
                "upscale_delay_s": 10,
                # Whoever is taken away has calls: not for a lull.
                "downscale_delay_s": 600,
            },
            graceful_shutdown_wait_loop_s=1,
            graceful_shutdown_timeout_s=(
                settings.server.drain_s if arguments.drain_s is None else arguments.drain_s
            ),
            health_check_period_s=5,
            health_check_timeout_s=30,
        )
        .bind(arguments.model_dump())
    )


class Replica:
    """The engines of one server, and the sessions that they serve.

    Args:
        arguments: as `Arguments` has them.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        set_up_logging()
        give_memory_back()
        share_arenas()
        raise_descriptor_limit()
        settings = _settings(Arguments.model_validate(arguments))
        machine = this_machine()
        bounds = {each.model.name: session_bound(each, machine) for each in settings.each_model}
        settings = with_bounds(settings, {name: each.sessions for name, each in bounds.items()})
        # Loads the models: Serve sends nobody here before it is done.
        self._app = create_app(settings, make_engines(settings))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return what answers requests."""
        return self._app

    def check_health(self) -> None:
        """Tell Serve to replace this replica, once the last of its engines is given up."""
        pools = [model.pool for model in self._app.state.gateway.models]
        if all(pool.state is LinkState.FAILED for pool in pools):
            raise RuntimeError("every engine died too often")


def _settings(arguments: Arguments) -> Settings:
    """Read the settings; what Serve does itself is left out of them."""
    overrides = [*arguments.set, "webrtc.enabled=false"]
    return load_settings(ROOT / arguments.config, overrides)
