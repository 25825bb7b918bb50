"""ttrpc for asyncio: frames, connection, client, server, transports, code generator."""
