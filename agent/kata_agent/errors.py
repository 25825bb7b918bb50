"""What can go wrong in the agent, by meaning. `rpc.boundary` alone turns a meaning into a status code.

AgentError                anything else: a system call, crun, a file
├── InvalidArgument       the request cannot be carried out as it stands
├── NotFound              no such process
├── AlreadyExists         the id is taken
├── FailedPrecondition    not in this state
├── PermissionDenied      the policy forbids it
├── Unavailable           the process has not what is asked for, such as a terminal
└── Unimplemented         not done by this agent, or not yet
"""

from __future__ import annotations


class AgentError(Exception):
    """The agent could not do what was asked."""


class InvalidArgument(AgentError):
    """The request cannot be carried out as it stands: an id, a storage, a spec without what it needs."""


class NotFound(AgentError):
    """No such process in the container."""


class AlreadyExists(AgentError):
    """The id is taken by a container or process that still is there."""


class FailedPrecondition(AgentError):
    """The sandbox or container is not in a state that allows it."""


class PermissionDenied(AgentError):
    """The policy forbids it."""


class Unavailable(AgentError):
    """The process has not what is asked for."""


class Unimplemented(AgentError):
    """Something this agent does not do."""
