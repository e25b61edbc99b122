"""Live video: make it, send it, decode what comes back, and measure it.

Send, as MPEG-TS segments for trickle or as one Matroska stream for a chunked HTTP response::

    form = VideoFormat(width=512, height=512, fps=24)
    async with VideoInput.as_segments(form) as video:          # frames start now, in real time, on a thread
        async for segment in video.output:                     # one a second, when its first bytes exist
            async for data in segment.content: ...             # bytes come while the segment is written
        video.stop()                                           # from anywhere on the loop: readers get the rest
    async with VideoInput.as_matroska(form) as video:
        async for data in video.output: ...
    sent = video.sent                                          # SentFrames, at any time

Several segments may be read at once, each by one reader. A segment that nobody wants is dropped with
`segment.content.discard()`; bytes that nobody reads end the video with ReceiverTooSlowError after 8 MiB. Frames never
come in bursts: those whose time has passed are skipped and counted.

Write and read trickle channels, with `LiveRunnerClient.open_request`; nothing that a server does raises::

    end = await ChannelWriter(open_request, url).write(segment.content async for segment in video.output)
    async with ChannelReader(open_request, url, start=0) as reader:  # or NEXT, CURRENT
        async for piece in reader:                             # piece.arrived, piece.number, piece.data
            await decoder.feed(piece.data, piece.arrived)
    reader.end.code, reader.end.message, reader.gaps           # why it ended, and what was missed

Receive MPEG-TS (segments one after the other) or FLV::

    options = DecoderOptions(form, container="mpegts", stills=6, limits=DecoderLimits.for_video(form, seconds=60))
    async with VideoDecoder(options) as decoder:               # a process of its own; container="" detects
        await decoder.feed(data, loop.time())                  # per read of the socket, with its time of arrival
        await decoder.wait_for_frames(1)                       # False if decoding ended before
        decoder.frames, decoder.problem                        # so far; feed() drops bytes after a problem
        decoded = await decoder.finish()                       # DecodedVideo: frames, stills, problem, damaged

Nothing in a stream raises: it becomes `problem`. Pass to `feed` the time at which the bytes came from the socket, not
the time of the call. Measure, on a thread (`asyncio.to_thread`), it takes some tenths of a second::

    measures = measure_video(decoded.frames, sent, Measurement(started=..., ended=..., updates=(...)))

All times are those of the monotonic clock, which is also `loop.time()`.
"""
