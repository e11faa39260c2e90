"""Hold the calls of a server."""

import asyncio
import contextlib
import hashlib
import secrets
import socket
from collections.abc import Callable

from server.config.webrtc import WebRtcSettings
from server.errors import ClientError
from server.session.counts import Counts, count_in
from server.session.session import Session
from server.session.transport import Player, Transport
from server.session.work_thread import WorkThread
from server.transport.auth import NOBODY, Admitted
from server.transport.door import counted
from server.transport.envelope import RefusedError
from server.transport.models import ServedModel
from server.webrtc.call import Call, CallParts
from server.webrtc.dtls import CertificateStore
from server.webrtc.network import Network
from server.webrtc.offer import Offer, parse_offer
from server.webrtc.opus import RATES_HZ, library

_PREFIX = "rtc"


class Calls:
    """Begin calls, find them by their ids, and end them.

    Args:
        settings: of calls.
        network: bound; it is opened and closed with this.
        counts: of the gateway.

    Raises:
        ConfigError: there is no libopus.
    """

    def __init__(
        self,
        settings: WebRtcSettings,
        network: Network,
        counts: Counts,
    ) -> None:
        library()
        self.settings = settings
        self._network = network
        self._encoding = WorkThread("encoding")
        self._counts = counts
        self._certificates = CertificateStore()
        name = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
        # It stands in each call's id. Behind a load balancer a request about a call may come to the
        # wrong server, which can then say so instead of "no such call".
        self._server_id = settings.server_id or name
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def takes_video(self, model: ServedModel) -> bool:
        """Say whether calls to a model can have a camera."""
        return model.gallery.sees and self.settings.camera_fps > 0

    @property
    def num_calls(self) -> int:
        """Count all calls, also those whose client has not connected yet."""
        return len(self._calls)

    @property
    def all(self) -> list[Call]:
        """Return the calls there are."""
        return [*self._calls.values()]

    @property
    def udp_port(self) -> int | None:
        """Return the port that all calls share; None if each has its own."""
        return self._network.udp_port

    async def start(self) -> None:
        """Begin to take datagrams.

        Raises:
            ConfigError: a port cannot be had.
        """
        await self._network.listen()
        self._encoding.start()

    async def until_none(self) -> None:
        """Wait until no call is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """End all calls and give the ports back."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._encoding.stop()
        await self._network.close()

    def begin(
        self,
        model: ServedModel,
        offer: Offer,
        asked: str,
        new_session: Callable[[Transport, Player], Session],
        by: Admitted = NOBODY,
    ) -> Call:
        """Take an offer; the call has a place, and its answer can be sent.

        Args:
            model: that is called; the call takes a place of it.
            offer: of the client.
            asked: host by which the client reached the server.
            new_session: makes its session.
            by: what it comes by; an ephemeral key ends the call when it is revoked.

        Raises:
            OverloadedError: there is no place, no port, or the key has its sessions already.
            RefusedError: the API key has what it may have.
        """
        info, gallery = model.pool.info, model.gallery
        assert info.sample_rate_hz in RATES_HZ, "engines speak at rates that Opus has"
        # The place is taken before anything is made, and is the call's to give back from then on.
        # If making it fails, it is given back here.
        with contextlib.ExitStack() as stack:
            stack.enter_context(model.pool.place())
            call_id = f"{_PREFIX}_{self._server_id}_{secrets.token_hex(16)}"
            place = stack.pop_all()
        open_with_key = contextlib.ExitStack()
        try:
            parts = CallParts(
                self.settings,
                info.sample_rate_hz,
                self._certificates.current(),
                self._network,
                self._encoding,
                new_session,
                place.close,
                gallery.images,
                gallery.side("auto"),
                self.takes_video(model),
            )
            call = Call(call_id, offer, asked, parts)
            open_with_key.enter_context(counted(by.account, call.use_up))
            if by.key is not None:
                open_with_key.enter_context(by.key.opened(call.revoke))
        except BaseException:
            open_with_key.close()
            place.close()
            raise
        self._calls[call_id] = call
        self._counts.calls += 1
        task = asyncio.create_task(self._run(call, open_with_key), name=f"call {call_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return call

    def find(self, call_id: str) -> Call:
        """Return a call.

        Raises:
            ClientError: there is none of this id here.
        """
        call = self._calls.get(call_id)
        if call is not None:
            return call
        parts = call_id.split("_")
        if len(parts) == 3 and parts[0] == _PREFIX and parts[1] != self._server_id:
            reason = f"it is a call of server '{parts[1]}', and this is '{self._server_id}'"
        else:
            reason = "it has ended, or never was"
        raise RefusedError(404, f"No call '{call_id[:100]}': {reason}.", code="call_not_found")

    def has(self, call_id: str) -> bool:
        """Say whether there is a call of this id."""
        return call_id in self._calls

    def check(self, call_id: str) -> None:
        """Say whether there is a call, as `find` does."""
        self.find(call_id)

    async def session(self, call_id: str) -> Session:
        """Return a call's session, waiting for its client to connect.

        Raises:
            ClientError: there is none of this id here, or it ended before it began.
        """
        session = await self.find(call_id).session()
        if session is None:
            raise RefusedError(404, f"The call '{call_id}' has ended.", code="call_not_found")
        return session

    def renew(self, call_id: str, sdp: str) -> str:
        """Answer a new offer of a call's client: from another network, or with a camera besides.

        Raises:
            ClientError: there is no such call, or the offer is not this client's.
        """
        call = self.find(call_id)
        answer = call.renew(parse_offer(sdp, sees=call.takes_video))
        if answer is None:
            raise ClientError(
                "The offer is not one of this call: its certificate or its sections differ. Only a "
                "camera can be added, as the last section.",
                code="invalid_offer",
                param="sdp",
            )
        return answer

    async def _run(self, call: Call, open_with_key: contextlib.ExitStack) -> None:
        reason = "stopped"
        try:
            with open_with_key:
                reason = await call.run()
        finally:
            del self._calls[call.id]
            count_in(self._counts.calls_ended, reason)
            self._counts.call_packets += call.receiver_counts.received
            self._counts.call_frames_concealed += call.receiver_counts.concealed
