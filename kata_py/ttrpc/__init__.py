"""ttrpc for asyncio: a client and a server for the small RPC protocol of containerd's shims and kata's agent.

    async with connect(UnixAddress("/run/shim.sock"), timeout=5.0) as client:
        state = await TaskClient(client).State(StateRequest(id="web"), timeout=2.0)

    server = Server()
    server.add(Tasks())  # a subclass of the generated TaskService
    await server.listen(UnixAddress("/run/shim.sock"))

From the wire up; each module knows only those above it:

    frames      the ten-byte header, and what cuts a byte stream into frames
    envelope    Request and Response, in which every call travels; no protobuf needed
    connection  either end's state: bytes in, events out, bytes to send; no I/O
    link        a connection on the event loop, over any asyncio transport
    transport/  those transports: Unix sockets, vsock, hybrid vsock, serial lines, memory
    inbox       what came on a stream and is not read yet, and how a slow reader is borne
    stream      streams, as callers and handlers see them
    client      calls
    session     one connection as a server serves it
    server      services by name, and where they are served
    codegen     the protoc plug-in that writes typed clients and base classes
    testing     a client and a server joined in memory

Calls that nobody waits for any more go on: ttrpc has no frame to cancel one, and a container half created
because a manager was restarted helps nobody. `Context.cancel_if_abandoned` is for handlers that lose nothing.
"""
