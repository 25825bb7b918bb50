"""EC2's error codes, as kinds of failure, words for a pod's user and what to do.

Source: Amazon EC2 API Reference, "Error codes for the Amazon EC2 API"; the codes of spot machines from
"Spot Instance request status"; those of credentials from AWS Signature and STS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

from kata_caa.errors import Fault, ProviderError


class Meaning(NamedTuple):
    """What a code means: its kind, words for a pod's user, and what to do."""

    fault: Fault
    words: str
    hint: str


_ADMIN_KEYS: Final = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role of the node"
_ADMIN_POLICY: Final = "allow the action in the IAM policy of the adaptor's user or role"
_ADMIN_QUOTA: Final = "delete machines that are not needed, or ask AWS for a higher quota"
_OTHER_TYPE: Final = "try later, or name more types in PODVM_FALLBACK_INSTANCE_TYPES and more zones in AWS_SUBNET_IDS"
_LATER: Final = "this passes by itself"
_REPORT: Final = "this is a defect of the adaptor: report it with the log"
_CVM: Final = "set DISABLECVM=true for ordinary machines, or take types with AMD SEV-SNP such as m6a, c6a and r6a"

ENDED: Final = "IdempotentInstanceTerminated"
"""The code of a call whose ClientToken made a machine that has ended since."""

TABLE: Final[Mapping[str, Meaning]] = {
    # No machine of this kind here and now.
    "InsufficientInstanceCapacity": Meaning(
        Fault.CAPACITY, "the cloud has no machine of this type left here", _OTHER_TYPE
    ),
    "InsufficientHostCapacity": Meaning(Fault.CAPACITY, "the cloud has no host of this type left here", _OTHER_TYPE),
    "InsufficientReservedInstanceCapacity": Meaning(
        Fault.CAPACITY, "the cloud has no reserved machine of this type left here", _OTHER_TYPE
    ),
    "InsufficientCapacity": Meaning(Fault.CAPACITY, "the cloud has no capacity left for this request", _OTHER_TYPE),
    "InsufficientCapacityOnHost": Meaning(Fault.CAPACITY, "the dedicated host has no room left", _OTHER_TYPE),
    "InsufficientVolumeCapacity": Meaning(Fault.CAPACITY, "the cloud has no disk capacity left here", _OTHER_TYPE),
    "ReservationCapacityExceeded": Meaning(Fault.CAPACITY, "the capacity reservation is used up", _OTHER_TYPE),
    "SpotMaxPriceTooLow": Meaning(
        Fault.CAPACITY, "spot machines cost more than the highest price allowed", _OTHER_TYPE
    ),
    "Unsupported": Meaning(
        Fault.CAPACITY,
        "the cloud does not offer this type, or an option of it, in this zone",
        "name zones that have the type in AWS_SUBNET_IDS; for confidential machines the type needs AMD SEV-SNP",
    ),
    "InsufficientFreeAddressesInSubnet": Meaning(
        Fault.CAPACITY, "the subnet has no free address left", "name further subnets in AWS_SUBNET_IDS"
    ),
    "InsufficientAddressCapacity": Meaning(
        Fault.CAPACITY, "the cloud has no public address left", "try later, or set USE_PUBLIC_IP=false"
    ),
    # What the account may have.
    "InstanceLimitExceeded": Meaning(Fault.QUOTA, "the account may not run more machines of this type", _ADMIN_QUOTA),
    "VcpuLimitExceeded": Meaning(Fault.QUOTA, "the account may not run more vCPUs of this family", _ADMIN_QUOTA),
    "MaxSpotInstanceCountExceeded": Meaning(Fault.QUOTA, "the account may not run more spot machines", _ADMIN_QUOTA),
    "MaxSpotFleetRequestCountExceeded": Meaning(
        Fault.QUOTA, "the account may not ask for more spot machines", _ADMIN_QUOTA
    ),
    "AddressLimitExceeded": Meaning(Fault.QUOTA, "the account may not have more public addresses", _ADMIN_QUOTA),
    "NetworkInterfaceLimitExceeded": Meaning(
        Fault.QUOTA, "the account may not have more network interfaces", _ADMIN_QUOTA
    ),
    "AttachmentLimitExceeded": Meaning(
        Fault.FATAL, "the type takes no further interface or volume", "take a larger type, or fewer volumes"
    ),
    "VolumeLimitExceeded": Meaning(Fault.QUOTA, "the account may not have more disk space", _ADMIN_QUOTA),
    "ServiceQuotaExceededException": Meaning(
        Fault.QUOTA, "the account may not have more snapshots begun at a time", "wait, or ask AWS for a higher quota"
    ),
    "MaxIOPSLimitExceeded": Meaning(Fault.QUOTA, "the account may not have faster disks", _ADMIN_QUOTA),
    "ResourceCountExceeded": Meaning(Fault.QUOTA, "the account may not have more of this at once", _ADMIN_QUOTA),
    "PendingVerification": Meaning(Fault.QUOTA, "AWS still verifies the account", "wait until AWS sends its e-mail"),
    "CpuCredits.InsufficientQuota": Meaning(Fault.QUOTA, "the account may not have more burst credit", _ADMIN_QUOTA),
    # Too many calls.
    "RequestLimitExceeded": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "Throttling": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "ThrottlingException": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "RequestThrottledException": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "ConcurrentLimitExceededException": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "RequestThrottled": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "TooManyRequestsException": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "SlowDown": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "BandwidthLimitExceeded": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "EC2ThrottledException": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    # The cloud's own trouble, and what is not to be seen yet.
    "InternalError": Meaning(Fault.TRANSIENT, "the cloud has an internal error", _LATER),
    "InternalFailure": Meaning(Fault.TRANSIENT, "the cloud has an internal error", _LATER),
    "ServerInternal": Meaning(Fault.TRANSIENT, "the cloud has an internal error", _LATER),
    "Unavailable": Meaning(Fault.TRANSIENT, "the cloud is overloaded", _LATER),
    "ServiceUnavailable": Meaning(Fault.TRANSIENT, "the cloud is overloaded", _LATER),
    "RequestExpired": Meaning(
        Fault.TRANSIENT, "the call reached the cloud too late", "check the node's clock if this comes again"
    ),
    "IncorrectState": Meaning(Fault.TRANSIENT, "the machine changes its state at the moment", _LATER),
    "IncorrectInstanceState": Meaning(Fault.TRANSIENT, "the machine changes its state at the moment", _LATER),
    "ConcurrentTagAccess": Meaning(Fault.TRANSIENT, "the tags change at the moment", _LATER),
    "DependencyViolation": Meaning(Fault.TRANSIENT, "another object still needs this one", _LATER),
    "InvalidInstanceID.NotFound": Meaning(Fault.TRANSIENT, "the machine is not there, or not to be seen yet", _LATER),
    "InvalidNetworkInterfaceID.NotFound": Meaning(
        Fault.TRANSIENT, "the network interface is not there, or not to be seen yet", _LATER
    ),
    "InvalidAllocationID.NotFound": Meaning(
        Fault.TRANSIENT, "the public address is not there, or not to be seen yet", _LATER
    ),
    "InvalidVolume.NotFound": Meaning(Fault.TRANSIENT, "the volume is not there, or not to be seen yet", _LATER),
    # What a person has to change.
    "UnauthorizedOperation": Meaning(Fault.FATAL, "the adaptor may not do this in the cloud account", _ADMIN_POLICY),
    "AccessDenied": Meaning(Fault.FATAL, "the adaptor may not do this in the cloud account", _ADMIN_POLICY),
    "AccessDeniedException": Meaning(Fault.FATAL, "the adaptor may not do this in the cloud account", _ADMIN_POLICY),
    "AuthFailure": Meaning(Fault.FATAL, "the cloud does not accept the adaptor's credentials", _ADMIN_KEYS),
    "InvalidClientTokenId": Meaning(Fault.FATAL, "the cloud does not know the adaptor's access key", _ADMIN_KEYS),
    "UnrecognizedClientException": Meaning(
        Fault.FATAL, "the cloud does not know the adaptor's access key", _ADMIN_KEYS
    ),
    "SignatureDoesNotMatch": Meaning(Fault.FATAL, "the cloud does not accept the adaptor's secret key", _ADMIN_KEYS),
    "MissingAuthenticationToken": Meaning(Fault.FATAL, "the adaptor has no credentials", _ADMIN_KEYS),
    "ExpiredToken": Meaning(Fault.FATAL, "the adaptor's credentials have expired", _ADMIN_KEYS),
    "ExpiredTokenException": Meaning(Fault.FATAL, "the adaptor's credentials have expired", _ADMIN_KEYS),
    "OptInRequired": Meaning(Fault.FATAL, "the account has not subscribed to this", "subscribe to it in AWS's console"),
    "Blocked": Meaning(Fault.FATAL, "AWS has blocked the account", "ask AWS's support"),
    "InvalidAMIID.NotFound": Meaning(
        Fault.FATAL, "the pod VM image does not exist", "check PODVM_AMI_ID, the pod's image annotation, the region"
    ),
    "InvalidAMIID.Malformed": Meaning(
        Fault.FATAL, "the pod VM image's id is not an AMI's", "check PODVM_AMI_ID, or the pod's image annotation"
    ),
    "InvalidAMIID.Unavailable": Meaning(
        Fault.FATAL, "the pod VM image cannot be used (yet)", "wait until the image is registered, or take another"
    ),
    "InvalidSubnetID.NotFound": Meaning(
        Fault.FATAL, "the subnet does not exist", "check AWS_SUBNET_ID, AWS_SUBNET_IDS and the region"
    ),
    "InvalidSubnet": Meaning(Fault.FATAL, "the subnet cannot be used", "check AWS_SUBNET_ID and AWS_SUBNET_IDS"),
    "InvalidGroup.NotFound": Meaning(
        Fault.FATAL, "a security group does not exist", "check AWS_SG_IDS; the groups must be of the subnet's VPC"
    ),
    "InvalidGroupId.Malformed": Meaning(Fault.FATAL, "a security group's id is no id", "check AWS_SG_IDS"),
    "InvalidKeyPair.NotFound": Meaning(Fault.FATAL, "the SSH key pair does not exist", "check SSH_KP_NAME"),
    "InvalidInstanceType": Meaning(
        Fault.FATAL, "the instance type does not exist", "check PODVM_INSTANCE_TYPE(S) and the region"
    ),
    "InvalidLaunchTemplateName.NotFoundException": Meaning(
        Fault.FATAL, "the launch template does not exist", "check PODVM_LAUNCHTEMPLATE_NAME"
    ),
    "InvalidLaunchTemplateId.NotFound": Meaning(
        Fault.FATAL, "the launch template does not exist", "check PODVM_LAUNCHTEMPLATE_NAME"
    ),
    "InvalidBlockDeviceMapping": Meaning(
        Fault.FATAL, "the root disk's size or name does not fit the image", "check ROOT_VOLUME_SIZE"
    ),
    "InvalidUserData.Malformed": Meaning(Fault.FATAL, "the cloud cannot read the user data", _REPORT),
    "InvalidParameterCombination": Meaning(Fault.FATAL, "the cloud does not take these settings together", ""),
    "InvalidParameterValue": Meaning(Fault.FATAL, "the cloud does not take a setting's value", ""),
    "InvalidParameter": Meaning(Fault.FATAL, "the cloud does not take a setting's value", ""),
    "MissingParameter": Meaning(Fault.FATAL, "the call lacks a value", _REPORT),
    "ValidationError": Meaning(Fault.FATAL, "the cloud does not take a setting's value", ""),
    "IdempotentParameterMismatch": Meaning(Fault.FATAL, "the machine was asked for before, in another way", _REPORT),
    ENDED: Meaning(Fault.FATAL, "the machine was asked for before, and has ended", "let the pod be made anew"),
    "TagLimitExceeded": Meaning(Fault.FATAL, "there are too many tags", "name fewer in TAGS; EC2 takes 50 in all"),
    "InvalidTagKey.Malformed": Meaning(
        Fault.FATAL, "a tag's name is not allowed", "check TAGS: no name begins with aws:"
    ),
    "VPCIdNotSpecified": Meaning(
        Fault.FATAL, "no subnet is set and the region has no default network", "set AWS_SUBNET_ID"
    ),
    "InvalidSpotInstanceRequestID.NotFound": Meaning(
        Fault.TRANSIENT, "the spot request is not there, or not to be seen yet", _LATER
    ),
    "OperationNotPermitted": Meaning(Fault.FATAL, "the cloud does not permit this", "look for termination protection"),
    "UnsupportedOperation": Meaning(Fault.FATAL, "the cloud does not support this for the machine", ""),
    "InvalidSpotInstanceType": Meaning(Fault.CAPACITY, "there are no spot machines of this type", _OTHER_TYPE),
}

_MISSING: Final = frozenset(
    {
        "InvalidInstanceID.NotFound",
        "InvalidNetworkInterfaceID.NotFound",
        "InvalidAllocationID.NotFound",
        "InvalidAssociationID.NotFound",
        "InvalidAttachmentID.NotFound",
        "InvalidVolume.NotFound",
        "InvalidSpotInstanceRequestID.NotFound",
        "InvalidAddressID.NotFound",
        "InvalidAddress.NotFound",
    }
)
_BUSY: Final = frozenset(
    {
        "InvalidParameterValue",  # so DeleteNetworkInterface says that the interface is in use
        "InvalidNetworkInterface.InUse",
        "InvalidIPAddress.InUse",
        "VolumeInUse",
        "DependencyViolation",
        "IncorrectState",
        "IncorrectInstanceState",
    }
)
_CVM_WORDS: Final = ("amdsevsnp", "amd-sev-snp", "sev-snp", "amd sev", "cpuoptions", "cpu option")
_MESSAGE_LIMIT: Final = 300


def is_missing(error: ProviderError) -> bool:
    """Whether an error says that the object is not there: for deleting, that is success."""
    return error.code in _MISSING


def is_busy(error: ProviderError) -> bool:
    """Whether an error of removing says that the object still serves another one, which goes first."""
    return error.code in _BUSY


def translate(error: Exception) -> ProviderError:
    """An error of boto3's as one of a provider.

    An unknown code is passing where the cloud says that the trouble is its own (5xx), otherwise a person's task. An
    answer that cannot be read, or none, is passing: whether the call had an effect is not known then.
    """
    if isinstance(error, ClientError):
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        message = str(answer.get("Error", {}).get("Message", ""))
        return meaning(code, message, int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)))
    if isinstance(error, NoCredentialsError):
        return ProviderError(Fault.FATAL, "the adaptor has no credentials", code="NoCredentials", hint=_ADMIN_KEYS)
    if isinstance(error, ProfileNotFound):
        return ProviderError(Fault.FATAL, str(error), code="ProfileNotFound", hint="check -aws-profile")
    if isinstance(error, NoRegionError):
        return ProviderError(
            Fault.FATAL, "no region is set, and the node's metadata tell none", code="NoRegion", hint="set AWS_REGION"
        )
    code = type(error).__name__
    if isinstance(error, BotoCoreError) and code in ("ParamValidationError", "UnknownParameterError"):
        return ProviderError(Fault.FATAL, f"the call is not as EC2 wants it: {_short(str(error))}", code=code)
    return ProviderError(Fault.TRANSIENT, f"the cloud does not answer: {_short(str(error))}", code=code)


def meaning(code: str, message: str = "", status: int = 0) -> ProviderError:
    """What a code means.

    Args:
        code: EC2's; the prefixes `Client.` and `Server.` of state reasons are taken off.
        message: EC2's words.
        status: The answer's HTTP status; 0 is not known.
    """
    code = code.removeprefix("Client.").removeprefix("Server.")
    known = TABLE.get(code)
    if known is None:
        fault = Fault.TRANSIENT if status >= 500 else Fault.FATAL
        return ProviderError(fault, _short(message) or f"the cloud refuses with status {status}", code=code)
    if known.fault is not Fault.THROTTLE and any(word in message.lower() for word in _CVM_WORDS):
        return ProviderError(
            Fault.CAPACITY if known.fault is Fault.CAPACITY else Fault.FATAL,
            f"the machine cannot be confidential (AMD SEV-SNP): {_short(message)}",
            code=code,
            hint=_CVM,
        )
    words = f"{known.words}: {_short(message)}" if message and known.fault is not Fault.THROTTLE else known.words
    return ProviderError(known.fault, words, code=code, hint=known.hint)


def without_cvm(names: str) -> ProviderError:
    """No type is left that can be confidential.

    Args:
        names: The types that were wanted.
    """
    return ProviderError(
        Fault.FATAL, f"pods are to be confidential, which {names} cannot be (AMD SEV-SNP)", code="NoSevSnp", hint=_CVM
    )


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE_LIMIT else f"{line[:_MESSAGE_LIMIT]}…"
