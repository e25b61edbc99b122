"""Advise what an operator can do about each problem that a check finds."""

from __future__ import annotations

from collections.abc import Mapping

_BY_PROBLEM: Mapping[tuple[str, str], str] = {
    ("image", "size"): "Let the runner return the requested width and height; some models round them.",
    ("image", "flat"): "A picture of one color usually comes of a wrong data type (fp16 overflow), a broken VAE, or a "
    "safety checker that blacks pictures out. Compare it with the picture below, and look into the runner's log.",
    ("image", "seed"): "Return the seed that was used with each picture; without it nobody can repeat a result.",
    ("image", "unchanged"): "The runner returned its input. Check that the model is loaded and not skipped.",
    ("image", "count"): "Return as many pictures as num_images_per_prompt or n asks for.",
    ("image", "not_an_image"): "The file is no picture; the message has its beginning. Often it is an error page.",
    ("image", "undecodable"): "The file is damaged or cut off. Check how the runner writes it and the store serves it.",
    ("video", "frames"): "Return the requested number of frames.",
    ("video", "duration"): "Write the video with the requested frame rate.",
    ("video", "still"): "Every frame is the same. Check that the model, and not only its first step, has run.",
    ("video", "flat"): "Every frame is one color: usually a wrong data type or a broken VAE.",
    ("video", "codec"): "Encode as H.264 in MP4, which every browser plays.",
    ("video", "size"): "Return the requested width and height.",
    ("audio", "silent"): "The sound is silent. Check the data type and that the vocoder is loaded.",
    ("audio", "duration"): "The sound is much too short or too long for its text: it is cut, or it runs on.",
    ("audio", "steady"): "It is a tone or noise and no speech. Check that the model's weights are loaded.",
    ("audio", "full_scale"): "Scale the samples before they are written as integers: they are clipped throughout.",
    ("audio", "not_finite"): "The samples are NaN or infinite: usually a wrong data type (fp16 overflow).",
    ("transcript", "words"): "Too many words are wrong; the comparison shows which. Check the model, its language "
    "setting and the sample rate at which it gets the sound.",
    ("transcript", "chunks"): "The chunks and the text have to say the same.",
    ("caption", "words"): "The caption names nothing in the picture. Check that the model gets the picture at all.",
    ("caption", "error"): "The runner returned an error message as its caption. Return an HTTP status of 500 instead.",
    ("caption", "list"): "Return a sentence, not a list of words.",
    ("caption", "repeats"): "The caption repeats itself: usually a wrong data type, or a missing end-of-text token.",
    ("masks", "object"): "The masks miss the object in the picture. Check that point coordinates are not scaled twice.",
    ("masks", "shape"): "Return masks of the picture's own size.",
    ("chat", "contains"): "The answer to a simple question is wrong; the comparison shows the expected word. Check the "
    "chat template, the quantization, and that the right model answers.",
    ("chat", "empty"): "The answer has no text. Check the chat template, and that a model that thinks has tokens left.",
    ("chat", "echo"): "The answer repeats the question. Check the chat template.",
    ("chat", "list"): "The answer is a list of guesses. Check that a model answers, and not a stub.",
    ("chat", "finish"): "The stream broke off before its end. Check timeouts of proxies and of the server.",
    ("chat", "error"): "The server returned an error as its answer. Return an HTTP status of 500 instead.",
    ("embedding", "same"): "Different texts get the same vector. Check pooling, and that the input is read.",
    ("embedding", "constant"): "All numbers of the vector are equal. Check that the model's weights are loaded.",
    ("embedding", "length"): "Return vectors of the model's own length.",
    ("body", "bad_json"): "Return JSON. The beginning of the answer below often is the page of a proxy.",
}  # fmt: skip
_BY_CHECK: Mapping[str, str] = {
    "image": "Compare what came back with the expected values below.",
    "video": "Compare what came back with the expected values below.",
    "audio": "Listen to what came back, and compare it with the expected values below.",
    "masks": "Compare the masks' shape and position with the expected values below.",
    "transcript": "Compare the words below; the request has the very sound that was sent.",
    "caption": "Compare the words below; the request has the very picture that was sent.",
    "chat": "Compare the answer with the expected word below.",
    "embedding": "Compare the vectors with the expected values below.",
    "json": "Return the value that the expected values below describe.",
    "body": "Return the JSON of this pipeline. The answer is below.",
}
_OF_THE_TESTER = "Nothing: the tester itself could not judge this answer."
_TESTERS_PROBLEMS = ("unsupported", "too_heavy", "too_slow", "unchecked", "no_truth", "token_limit", "defect")


def advise(check: str, problem: str) -> str:
    """Return what to do about a problem that a check found; empty for a check that this program does not have."""
    if problem in _TESTERS_PROBLEMS:
        return _OF_THE_TESTER
    return _BY_PROBLEM.get((check, problem), _BY_CHECK.get(check, ""))
