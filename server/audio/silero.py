"""Run Silero's voice activity model, with all of a stream's state held by the stream.

The model file comes with the `silero-vad` package. The variant for many windows takes the
recurrent state as an input and returns it, so one loaded model serves any number of streams and
nothing can leak from one to another.
"""

import importlib
import importlib.util
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from server.audio.rows import rows_of
from server.audio.vad import WINDOW_MS, Echo, Window
from server.errors import ConfigError

VAD_RATE_HZ = 16_000
_WINDOW_SAMPLES = VAD_RATE_HZ * WINDOW_MS // 1000  # 512
# silero-vad's own wrapper puts them before each window of 16 kHz; without them the probabilities
# are others than those the model was trained for.
_CONTEXT_SAMPLES = 64  # of the window before, which the model sees again
_STATE_SHAPE = (1, 1, 128)
_NO_POWER = 1e-12  # -120 dB
_MODEL_FILE = "data/silero_vad_16k_sequence.onnx"

Samples = npt.NDArray[np.float32]


class SileroModel:
    """Hold the loaded model; threads may share it."""

    def __init__(self) -> None:
        # Slow to import, and only a server that listens needs it; it has no type information.
        onnxruntime = importlib.import_module("onnxruntime")
        spec = importlib.util.find_spec("silero_vad")
        places = list(spec.submodule_search_locations or ()) if spec else []
        path = Path(places[0]) / _MODEL_FILE if places else Path(_MODEL_FILE)
        if not path.is_file():
            raise ConfigError(
                f"voice detection needs {_MODEL_FILE} of the silero-vad package (6.2 or newer), "
                "which is not installed"
            )
        options = onnxruntime.SessionOptions()
        # A window is 0.15 ms of work: more threads would only get in the engine's way.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def run(self, windows: Samples, h: Samples, c: Samples) -> tuple[Samples, Samples, Samples]:
        """Return (probabilities [windows], h, c) for float32 [windows, context + window]."""
        outputs = self._session.run(
            ["speech_probs", "hn", "cn"], {"input": windows, "h": h, "c": c}
        )
        return cast("tuple[Samples, Samples, Samples]", tuple(outputs))


class SileroStream:
    """Turn a stream of 16 kHz audio into one speech probability per 32 ms."""

    def __init__(self, model: SileroModel) -> None:
        self._model = model
        self._h = np.zeros(_STATE_SHAPE, dtype=np.float32)
        self._c = np.zeros(_STATE_SHAPE, dtype=np.float32)
        # The context before the next window, then samples that do not fill a window yet.
        self._kept: Samples = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)

    def forget(self) -> None:
        """Go on as if silence had been heard so far, also in the window that is not full yet."""
        self._h, self._c = np.zeros_like(self._h), np.zeros_like(self._c)
        self._kept = np.zeros_like(self._kept)

    def feed(self, pcm: Samples) -> list[float]:
        """Return the probabilities of the windows that `pcm`, float32 [samples], completes."""
        return [window.probability for window in self.windows(pcm)]

    def windows(self, pcm: Samples, echo: Echo = Echo.NONE) -> list[Window]:
        """Return the windows that `pcm` completes.

        Args:
            pcm: float32 [samples].
            echo: what of one may be in it.
        """
        samples = np.concatenate((self._kept, pcm))
        num_windows = (len(samples) - _CONTEXT_SAMPLES) // _WINDOW_SAMPLES
        self._kept = samples[num_windows * _WINDOW_SAMPLES :].copy()  # and not all that was fed
        if not num_windows:
            return []
        width = _CONTEXT_SAMPLES + _WINDOW_SAMPLES
        windows = rows_of(samples, 0, num_windows, _WINDOW_SAMPLES, width).copy()
        probabilities, self._h, self._c = self._model.run(windows, self._h, self._c)
        # Of the window alone: the context was counted with the window before.
        heard = windows[:, _CONTEXT_SAMPLES:]
        powers = np.einsum("ws,ws->w", heard, heard) / _WINDOW_SAMPLES
        return [
            Window(probability, 10 * math.log10(max(power, _NO_POWER)), echo)
            for probability, power in zip(
                probabilities.reshape(-1).tolist(), powers.tolist(), strict=True
            )
        ]
