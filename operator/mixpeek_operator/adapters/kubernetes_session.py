"""An HTTP session that carries our credentials, for libraries that bring their own requests."""

from __future__ import annotations

import aiohttp

from mixpeek_operator.adapters.kubernetes_config import Connection


def session(connection: Connection) -> aiohttp.ClientSession:
    """Return a session for `connection` in this event loop: every request is authorized, once anew when refused.

    Credentials must not be shared between event loops: give a connection of its own to each.
    """

    async def authorize(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if connection.server_name is not None:
            request.server_hostname = connection.server_name
        for renew in (False, True):
            value = await connection.credentials.authorization(renew=renew)
            if value is None:
                break
            request.headers["Authorization"] = value
            answer = await send(request)
            if answer.status != 401 or renew:
                return answer
            answer.release()
        return await send(request)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=connection.tls, limit=0),
        headers={"User-Agent": "mixpeek-operator"},
        middlewares=(authorize,),
        proxy=connection.proxy,
    )
