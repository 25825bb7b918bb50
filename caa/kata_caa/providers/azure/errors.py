"""ARM's and Azure's error codes, as kinds of failure, words for a pod's user and what to do.

Source: "Troubleshoot common Azure deployment errors", "Allocation failures" and "Error codes when making virtual
machines" of Azure's documentation; codes of Microsoft.Network and of Entra ID (AADSTS) as their services give them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ODataV4Format,
    ServiceRequestError,
    ServiceResponseError,
)

from kata_caa.errors import Fault, ProviderError


class Meaning(NamedTuple):
    """What a code means: its kind, words for a pod's user, and what to do."""

    fault: Fault
    words: str
    hint: str


_OTHER_SIZE: Final = "try later, or name more sizes in AZURE_FALLBACK_INSTANCE_SIZES and more zones in AZURE_ZONES"
_QUOTA: Final = "delete machines that are not needed, or ask Azure for a higher quota"
_ROLE: Final = "give the adaptor's identity the roles it needs on the resource group, the subnet and the image"
_KEYS: Final = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or the workload identity's federation"
_LATER: Final = "this passes by itself"
_IMAGE: Final = "check AZURE_IMAGE_ID and that the image is replicated to AZURE_REGION"
_SUBNET: Final = "take a larger subnet in AZURE_SUBNET_ID, or delete what is not needed in it"
_REPORT: Final = "this may be a defect of the adaptor: report it with the log"
_PROVIDER: Final = "register Microsoft.Compute and Microsoft.Network in the subscription"
_POLICY: Final = "ask who keeps the subscription's policies and locks"
_SIZE: Final = "name sizes that the region has in AZURE_INSTANCE_SIZE and AZURE_INSTANCE_SIZES"
_CVM: Final = "confidential machines need a size and an image made for them; DISABLECVM=true makes ordinary ones"

_CAPACITY: Final = Fault.CAPACITY
_BUSY: Final = "it is still in use or being changed"

TABLE: Final[Mapping[str, Meaning]] = {
    # No machine of this kind here and now.
    "AllocationFailed": Meaning(_CAPACITY, "the cloud has no machine of this size left here", _OTHER_SIZE),
    "ZonalAllocationFailed": Meaning(_CAPACITY, "the cloud has no machine of this size left in the zone", _OTHER_SIZE),
    "OverconstrainedAllocationRequest": Meaning(
        _CAPACITY, "the cloud has no machine here that meets all that is asked for", _OTHER_SIZE
    ),
    "OverconstrainedZonalAllocationRequest": Meaning(
        _CAPACITY, "the cloud has no machine in the zone that meets all that is asked for", _OTHER_SIZE
    ),
    "SkuNotAvailable": Meaning(
        _CAPACITY, "the cloud does not offer this size here, or has none left for the subscription", _OTHER_SIZE
    ),
    "NotAvailableForSubscription": Meaning(_CAPACITY, "the subscription may not have this size here", _OTHER_SIZE),
    "RegionDoesNotAllowProvisioning": Meaning(
        Fault.FATAL, "the region takes no new machines of the subscription", "ask Azure for access to the region"
    ),
    "LowPriorityAllocationFailed": Meaning(_CAPACITY, "the cloud has no spot machine left here", _OTHER_SIZE),
    "SpotPriceGreaterThanProvidedMaxPrice": Meaning(
        _CAPACITY, "spot machines cost more than the highest price allowed", _OTHER_SIZE
    ),
    "AzureSpotFeatureNotEnabledForSubscription": Meaning(
        _CAPACITY, "the subscription may not have spot machines", "set USE_SPOT=no, or prefer"
    ),
    "AvailabilityZoneNotSupported": Meaning(_CAPACITY, "the region has no such zone for this size", _OTHER_SIZE),
    "ZoneNotAvailableForSubscription": Meaning(_CAPACITY, "the subscription may not use this zone", _OTHER_SIZE),
    "CapacityReservationGroupFull": Meaning(_CAPACITY, "the capacity reservation is used up", _OTHER_SIZE),
    "DiskServiceAllocationFailed": Meaning(_CAPACITY, "the cloud has no disk capacity left here", _OTHER_SIZE),
    # What the subscription may have.
    "QuotaExceeded": Meaning(Fault.QUOTA, "the subscription may not have more machines of this size", _QUOTA),
    "ResourceQuotaExceeded": Meaning(Fault.QUOTA, "the subscription may not have more of this", _QUOTA),
    "SubscriptionQuotaExceeded": Meaning(Fault.QUOTA, "the subscription may not have more of this", _QUOTA),
    "PublicIPCountLimitReached": Meaning(Fault.QUOTA, "the subscription may not have more public addresses", _QUOTA),
    "PublicIpCountExceedsLimit": Meaning(Fault.QUOTA, "the subscription may not have more public addresses", _QUOTA),
    "NetworkInterfaceCountLimitReached": Meaning(
        Fault.QUOTA, "the subscription may not have more network interfaces", _QUOTA
    ),
    "ResourceGroupQuotaExceeded": Meaning(Fault.QUOTA, "the resource group may not hold more", _QUOTA),
    "SubnetIsFull": Meaning(Fault.QUOTA, "the subnet has no free address left", _SUBNET),
    "DiskQuotaExceeded": Meaning(Fault.QUOTA, "the subscription may not have more disks", _QUOTA),
    # Too many calls.
    "TooManyRequests": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "OperationNotAllowedDueToThrottling": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "SubscriptionRequestsThrottled": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    "ResourceRequestsThrottled": Meaning(Fault.THROTTLE, "the cloud asks for fewer calls at a time", _LATER),
    # The cloud's own trouble, or a matter of moments.
    "RetryableError": Meaning(Fault.TRANSIENT, "the cloud was busy with something else", _LATER),
    "RetryableErrorDueToAnotherOperation": Meaning(Fault.TRANSIENT, "the cloud was busy with something else", _LATER),
    "AnotherOperationInProgress": Meaning(Fault.TRANSIENT, "the cloud was busy with something else", _LATER),
    "ConcurrentOperationError": Meaning(Fault.TRANSIENT, "the cloud was busy with something else", _LATER),
    "OperationPreempted": Meaning(Fault.TRANSIENT, "another operation on the machine came in between", _LATER),
    "Canceled": Meaning(Fault.TRANSIENT, "the cloud gave the operation up", _LATER),
    "Conflict": Meaning(Fault.TRANSIENT, "the cloud was busy with something else", _LATER),
    "InternalServerError": Meaning(Fault.TRANSIENT, "the cloud had a failure of its own", _LATER),
    "InternalExecutionError": Meaning(Fault.TRANSIENT, "the cloud had a failure of its own", _LATER),
    "InternalOperationError": Meaning(Fault.TRANSIENT, "the cloud had a failure of its own", _LATER),
    "InternalDiskManagementError": Meaning(Fault.TRANSIENT, "the cloud's disks had a failure of their own", _LATER),
    "NetworkingInternalOperationError": Meaning(
        Fault.TRANSIENT, "the cloud's network had a failure of its own", _LATER
    ),
    "ServerTimeout": Meaning(Fault.TRANSIENT, "the cloud did not answer in time", _LATER),
    "GatewayTimeout": Meaning(Fault.TRANSIENT, "the cloud did not answer in time", _LATER),
    "ServiceUnavailable": Meaning(Fault.TRANSIENT, "the cloud is out of service for a moment", _LATER),
    "VMStartTimedOut": Meaning(Fault.TRANSIENT, "the machine did not start in time", _LATER),
    "ProvisioningTimeout": Meaning(Fault.TRANSIENT, "the machine was not made in time", _LATER),
    "OSProvisioningTimedOut": Meaning(
        Fault.TRANSIENT,
        "the pod VM did not report that it is ready",
        "the image may not report to Azure, or may not boot on this size",
    ),
    "OSProvisioningClientError": Meaning(
        Fault.FATAL, "the pod VM's image could not be provisioned", "the image must be generalised, or report to Azure"
    ),
    "NicInUse": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "NicReservedForAnotherVm": Meaning(Fault.TRANSIENT, "the interface is kept for a machine of before", _LATER),
    "PublicIPAddressCannotBeDeleted": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "PublicIPAddressInUse": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "InUseNetworkInterfaceCannotBeDeleted": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "DiskBeingUsed": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "ResourceBeingDeleted": Meaning(Fault.TRANSIENT, "it is being deleted", _LATER),
    "AttachDiskWhileBeingDetached": Meaning(Fault.TRANSIENT, _BUSY, _LATER),
    "ReferencedResourceNotProvisioned": Meaning(
        Fault.TRANSIENT, "something that the machine needs is not made yet", _LATER
    ),
    # What a person must put right.
    "AuthorizationFailed": Meaning(Fault.FATAL, "the adaptor may not do this in the cloud", _ROLE),
    "LinkedAuthorizationFailed": Meaning(Fault.FATAL, "the adaptor may not use the subnet, group or image", _ROLE),
    "LinkedAccessCheckFailed": Meaning(Fault.FATAL, "the adaptor may not use the subnet, group or image", _ROLE),
    "AuthenticationFailed": Meaning(Fault.FATAL, "the cloud does not accept the adaptor's credentials", _KEYS),
    "InvalidAuthenticationToken": Meaning(Fault.FATAL, "the cloud does not accept the adaptor's credentials", _KEYS),
    "InvalidAuthenticationTokenTenant": Meaning(
        Fault.FATAL, "the adaptor's credentials belong to another tenant than the subscription", _KEYS
    ),
    "ExpiredAuthenticationToken": Meaning(Fault.TRANSIENT, "the adaptor's token has run out", _LATER),
    "SubscriptionNotFound": Meaning(Fault.FATAL, "there is no such subscription", "check AZURE_SUBSCRIPTION_ID"),
    "InvalidSubscriptionId": Meaning(Fault.FATAL, "there is no such subscription", "check AZURE_SUBSCRIPTION_ID"),
    "ReadOnlyDisabledSubscription": Meaning(
        Fault.FATAL, "the subscription is disabled", "ask who pays for the subscription"
    ),
    "DisabledSubscription": Meaning(Fault.FATAL, "the subscription is disabled", "ask who pays for the subscription"),
    "MissingSubscriptionRegistration": Meaning(Fault.FATAL, "the subscription is not set up for this", _PROVIDER),
    "NoRegisteredProviderFound": Meaning(Fault.FATAL, "the cloud does not offer this in the region", _PROVIDER),
    "SubscriptionNotRegisteredForFeature": Meaning(
        Fault.FATAL, "the subscription is not set up for a feature that is needed", _PROVIDER
    ),
    "ResourceGroupNotFound": Meaning(Fault.FATAL, "there is no such resource group", "check AZURE_RESOURCE_GROUP"),
    "ResourceGroupBeingDeleted": Meaning(
        Fault.FATAL, "the resource group is being deleted", "check AZURE_RESOURCE_GROUP"
    ),
    "LocationNotAvailableForResourceType": Meaning(Fault.FATAL, "the region has no machines", "check AZURE_REGION"),
    "InvalidResourceLocation": Meaning(
        Fault.FATAL, "a resource of that name is in another region", "check AZURE_REGION"
    ),
    "InvalidLocation": Meaning(Fault.FATAL, "there is no such region", "check AZURE_REGION"),
    "RequestDisallowedByPolicy": Meaning(Fault.FATAL, "a policy of the subscription forbids the machine", _POLICY),
    "ScopeLocked": Meaning(Fault.FATAL, "a lock keeps it from being changed", _POLICY),
    "ImageNotFound": Meaning(Fault.FATAL, "there is no such image", _IMAGE),
    "GalleryImageNotFound": Meaning(Fault.FATAL, "there is no such image", _IMAGE),
    "PlatformImageNotFound": Meaning(Fault.FATAL, "there is no such image", _IMAGE),
    "InvalidImage": Meaning(Fault.FATAL, "the image cannot be used", _IMAGE),
    "ImageVersionNotFound": Meaning(Fault.FATAL, "there is no such version of the image", _IMAGE),
    "InvalidResourceReference": Meaning(
        Fault.FATAL, "the subnet, group or image does not exist", "check AZURE_SUBNET_ID, AZURE_NSG_ID, AZURE_IMAGE_ID"
    ),
    "ResourceNotFound": Meaning(
        Fault.FATAL, "what the machine needs does not exist", "check AZURE_SUBNET_ID, AZURE_NSG_ID and AZURE_IMAGE_ID"
    ),
    "NotFound": Meaning(
        Fault.FATAL, "what the machine needs does not exist", "check AZURE_SUBNET_ID, AZURE_NSG_ID and AZURE_IMAGE_ID"
    ),
    "SubnetsNotInSameVnet": Meaning(Fault.FATAL, "the subnets are of different networks", "check AZURE_SUBNET_ID"),
    "SubnetDelegated": Meaning(Fault.FATAL, "the subnet is kept for another service", "check AZURE_SUBNET_ID"),
    "VMSizeNotSupported": Meaning(Fault.FATAL, "there is no such size, or not for this image", _SIZE),
    "InvalidVMSize": Meaning(Fault.FATAL, "there is no such size", _SIZE),
    "InvalidParameter": Meaning(Fault.FATAL, "the cloud does not take a value of the request", _REPORT),
    "InvalidParameterValue": Meaning(Fault.FATAL, "the cloud does not take a value of the request", _REPORT),
    "InvalidRequestContent": Meaning(Fault.FATAL, "the cloud does not understand the request", _REPORT),
    "InvalidRequestFormat": Meaning(Fault.FATAL, "the cloud does not understand the request", _REPORT),
    "InvalidApiVersionParameter": Meaning(
        Fault.FATAL, "this cloud does not know the version of the request", "check AZURE_ARM_ENDPOINT"
    ),
    "BadRequest": Meaning(Fault.FATAL, "the cloud does not take the request", _REPORT),
    "PropertyChangeNotAllowed": Meaning(Fault.FATAL, "a machine of that name is there, made otherwise", _REPORT),
    "ReservedResourceName": Meaning(Fault.FATAL, "the pod's name holds a word that the cloud keeps", "rename the pod"),
    "SecurityTypeNotSupported": Meaning(Fault.FATAL, "size or image cannot make a confidential machine", _CVM),
    "ConfidentialVMNotSupported": Meaning(Fault.FATAL, "size or image cannot make a confidential machine", _CVM),
    "MarketplacePurchaseEligibilityFailed": Meaning(
        Fault.FATAL, "the image must be bought first", "accept the image's terms in the Marketplace"
    ),
    "OperationNotAllowed": Meaning(Fault.FATAL, "the cloud does not allow this", "its own words tell why"),
}

_PHRASES: Final = (
    # Azure gives these codes to different things; its words tell them apart.
    ("OperationNotAllowed", "quota", TABLE["QuotaExceeded"]),
    ("OperationNotAllowed", "exceeding approved", TABLE["QuotaExceeded"]),
    ("OperationNotAllowed", "is attached to", TABLE["DiskBeingUsed"]),
    ("OperationNotAllowed", "marked for deletion", TABLE["ResourceBeingDeleted"]),
    ("InvalidParameter", "securitytype", TABLE["SecurityTypeNotSupported"]),
    ("BadRequest", "security type", TABLE["SecurityTypeNotSupported"]),
    ("InvalidParameter", "vm size", TABLE["InvalidVMSize"]),
    ("Conflict", "quota", TABLE["QuotaExceeded"]),
)
_GENERIC: Final = frozenset(
    {"DeploymentFailed", "InvalidTemplateDeployment", "ResourceDeploymentFailure", "BadRequest"}
)
"""Codes that only say that a detail of them says what is wrong."""

_WORDS = 300  # characters of the cloud's own words


@contextmanager
def translated(stage: str) -> Iterator[None]:
    """Make errors of Azure's library the provider's own.

    Args:
        stage: What is being done: `making the machine`.

    Raises:
        ProviderError: In the place of any of them.
    """
    try:
        yield
    except AzureError as error:
        raise translate(error, stage) from error


def translate(error: AzureError, stage: str) -> ProviderError:
    """What an error of Azure's library means.

    Args:
        error: The error; of an answer, or of getting none.
        stage: What was being done.
    """
    if isinstance(error, HttpResponseError):
        code, words = _said(error)
        # What Entra ID answers, or why no token could be asked for, comes so, mostly without a code of ARM's.
        status = 401 if isinstance(error, ClientAuthenticationError) else error.status_code
        meaning = _meaning(code, words, status)
        own = f": {words}" if words else ""
        return ProviderError(meaning.fault, f"{stage}: {meaning.words}{own}", code=code, hint=meaning.hint)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return ProviderError(
            Fault.TRANSIENT,
            f"{stage}: the cloud cannot be reached: {_short(error.message)}",
            hint="check AZURE_ARM_ENDPOINT, the node's proxy and its way out if this stays",
        )
    return ProviderError(Fault.FATAL, f"{stage}: {_short(error.message)}", hint=_REPORT)


def code_of(error: HttpResponseError) -> str:
    """The code that an answer gives, of its detail where the code itself says nothing; may be empty."""
    return _said(error)[0]


def _said(error: HttpResponseError) -> tuple[str, str]:
    said = error.error
    if said is None:
        return "", _short(error.message)
    while said.code in _GENERIC and said.details:
        said = said.details[0]
    return said.code or "", _short(_text(said, error))


def _text(said: ODataV4Format, error: HttpResponseError) -> str:
    return str(said.message or "") if said.code else str(error.message)


def _meaning(code: str, words: str, status: int | None) -> Meaning:
    for of, phrase, meaning in _PHRASES:
        if code == of and phrase in words.lower():
            return meaning
    if code in TABLE:
        return TABLE[code]
    if status == 429:
        return TABLE["TooManyRequests"]
    if status == 401:
        return TABLE["AuthenticationFailed"]
    if status == 403:
        return TABLE["AuthorizationFailed"]
    if status is not None and (status >= 500 or status == 408):
        return TABLE["InternalServerError"]
    return Meaning(Fault.FATAL, "the cloud refused", "its own words tell why")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…"
