"""What can go wrong with a simulated job, by name, and to which pipelines each fault applies."""

from __future__ import annotations

_IMAGES = frozenset({"text-to-image", "image-to-image", "upscale"})
_VIDEO = frozenset({"image-to-video"})
_MEDIA = _IMAGES | _VIDEO
_SPEECH = frozenset({"text-to-speech"})
_TEXT = frozenset({"audio-to-text", "image-to-text", "llm", "openai-chat-completions"})

# The attempt fails at the orchestrator; the gateway decides what the client sees.
ATTEMPT = frozenset(
    {
        "error_503", "eof", "null", "runner_500", "runner_401", "runner_closed", "runner_503", "runner_400", "hang",
        "slow", "busy", "down", "frozen", "resets", "unreadable", "dies_in_job",
    }
)  # fmt: skip
# The gateway takes the attempt for a success; the bytes of its response are bad, for any pipeline.
RESPONSE = frozenset({"empty", "garbage_json", "html", "wrong_shape", "deep_json", "endless_body", "reset_mid_body"})
# The gateway responds by itself.
GATEWAY = frozenset({"gone_410", "gateway_500"})
# The response is well-formed and its content is bad; for these pipelines only.
CONTENT: dict[str, frozenset[str]] = {
    "empty_images": _MEDIA,
    "wrong_size": _MEDIA,
    "blank_image": _IMAGES,
    "truncated_image": _IMAGES,
    "not_an_image": _IMAGES,
    "bomb_image": _IMAGES,
    "no_seed_echo": _IMAGES,
    "unreachable_artifact": _MEDIA | _SPEECH,
    "flat_video": _VIDEO,
    "silent_audio": _SPEECH,
    "wrong_transcript": frozenset({"audio-to-text"}),
    "empty_text": _TEXT,
    "wrong_answer": _TEXT - {"audio-to-text"},
    "nan_mask": frozenset({"segment-anything-2"}),
    "wrong_mask": frozenset({"segment-anything-2"}),
}
# A runner that an orchestrator serves itself, or the app behind it. On an orchestrator, it applies to all its runners.
RUNNER = frozenset(
    {
        "runner_down",  # the app refuses connections: 502
        "runner_busy",  # no slot is free, whatever discovery says
        "runner_hangs",  # takes a slot and never responds
        "runner_slow",  # takes ten times as long
        "runner_wrong",  # the app responds 200 with something else
        "runner_fails",  # the app responds 500
        "runner_resets",  # the connection breaks in the middle of the body
        "runner_endless",  # the body never ends
        "runner_unhealthy",  # hidden from discovery, and not found
        "runner_gone",  # listed by discovery, but not found
        "runner_other_host",  # discovery names a URL on another host
        "runner_other_port",  # discovery names a URL on another port of the same host
        "runner_redirects",  # the app redirects to another host
        "runner_says_busy",  # the app itself responds 503 with almost the text of the orchestrator
        "runner_says_missing",  # the app itself responds 404 with almost the text of the orchestrator
        "runner_price_unavailable",  # no price at the moment: 503
        "runner_repeats_402",  # asks for payment again after it was paid
        "runner_asks_more",  # asks for ten times the price that discovery lists
        "session_lost",  # a reserved session is gone at its first call
        "session_conflict",  # the app of a reserved session says that it has another: 409
        "video_slow",  # the video comes back with a few frames per second
        "video_frozen",  # its first picture again and again
        "video_black",  # black pictures
        "video_mute",  # nothing comes back
        "video_empty_segments",  # segments without a byte come back
        "video_dies",  # after some seconds nothing more comes, and no channel is closed
        "video_ends_early",  # after some seconds the channel of the output is closed
        "video_session_lost",  # after some seconds the runner loses the session
        "video_other_host",  # the app names channels on another host
    }
)
# What is wrong with an orchestrator's list of runners.
DISCOVERY = frozenset(
    {
        "discovery_huge", "discovery_html", "discovery_wrong_types", "discovery_many", "discovery_slow",
        "discovery_huge_price", "discovery_fails",
        "tls_breaks",  # answers one request for the list, and then no connection gets through the TLS handshake
    }
)  # fmt: skip
# A stream of live video; the container's errors at the start are those of any attempt.
LIVE = frozenset(
    {
        "live_start_500",  # the container responds 500 to the start
        "live_start_503",  # the orchestrator is at capacity
        "live_mute",  # neither output nor events
        "live_no_events",  # output, but no events
        "live_empty_segments",  # segments without a byte, and events that report 23.5 frames per second
        "live_frozen",  # the first picture again and again
        "live_black",  # black pictures
        "live_slow",  # a few frames per second
        "live_container_dies",  # after some seconds frames and events stop, and it cannot be started again
        "live_orchestrator_dies",  # after some seconds the whole node is down
        "live_swap",  # after some seconds the output ends, and the stream is started again
        "live_error",  # after some seconds frames stop, and events report errors and restarts
        "live_degraded_input",  # good output, but events report too few frames in the input
        "live_degraded_inference",  # good output, but events report too few frames
        "live_ignores_params",  # changed parameters change nothing
        "live_claims_params",  # events report changed parameters, but the picture stays the same
        "live_never_loads",  # the model is loading for ever
    }
)
LIVE_PIPELINE = "live-video-to-video"
NAMES = ATTEMPT | RESPONSE | GATEWAY | RUNNER | DISCOVERY | LIVE | frozenset(CONTENT)

# What a generated network draws from: faults that do not hold a job up.
GENERATED = ("error_503", "eof", "null", "busy", "runner_400", "empty", "html", "wrong_shape", "gateway_500")


def applies_to(fault: str, pipeline: str) -> bool:
    """Return True if a fault applies to this pipeline or external capability."""
    if fault in CONTENT:
        return pipeline in CONTENT[fault]
    if fault in LIVE:
        return pipeline == LIVE_PIPELINE
    return fault in NAMES - RUNNER - DISCOVERY


def require_known(fault: str) -> str:
    """Return `fault` if it is the name of a fault or empty. ValueError otherwise."""
    if fault and fault not in NAMES:
        raise ValueError(f"unknown fault {fault!r}: one of {', '.join(sorted(NAMES))}")
    return fault
