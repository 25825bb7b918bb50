"""The settings of the AWS provider."""

from __future__ import annotations

from kata_caa.providers.aws.config import AwsConfig
from kata_caa.settings import load, settings_of

UPSTREAM = {
    ("aws-access-key-id", "AWS_ACCESS_KEY_ID"): "",
    ("aws-secret-key", "AWS_SECRET_ACCESS_KEY"): "",
    ("aws-session-token", "AWS_SESSION_TOKEN"): "",
    ("aws-region", "AWS_REGION"): "",
    ("aws-profile", ""): "",
    ("instance-type", "PODVM_INSTANCE_TYPE"): "m6a.large",
    ("instance-types", "PODVM_INSTANCE_TYPES"): (),
    ("imageid", "PODVM_AMI_ID"): "",
    ("keyname", "SSH_KP_NAME"): "",
    ("subnetid", "AWS_SUBNET_ID"): "",
    ("securitygroupids", "AWS_SG_IDS"): (),
    ("use-lt", "USE_PODVM_LAUNCHTEMPLATE"): False,
    ("aws-lt-name", "PODVM_LAUNCHTEMPLATE_NAME"): "kata",
    ("use-public-ip", "USE_PUBLIC_IP"): False,
    ("root-volume-size", "ROOT_VOLUME_SIZE"): 30,
    ("disable-cvm", "DISABLECVM"): False,
    ("tags", "TAGS"): (),
}


def test_every_flag_and_variable_of_upstreams_is_there_with_its_default():
    ours = {(how.flag, how.environment): field.default for field, how in settings_of(AwsConfig)}
    assert UPSTREAM.items() <= ours.items()


def test_every_setting_says_what_it_means_and_is_unlike_any_other():
    settings = [how for _, how in settings_of(AwsConfig)]
    assert all(how.meaning for how in settings)
    assert len({how.flag for how in settings if how.flag}) == len([how for how in settings if how.flag])
    assert all(how.flag or how.environment for how in settings)


def test_the_network_that_openshifts_template_names_is_taken_and_changes_nothing():
    config = load(AwsConfig, {}, {"AWS_VPC_ID": "vpc-1", "AWS_SUBNET_ID": "subnet-1"})
    assert (config.vpc, config.places()) == ("vpc-1", ("subnet-1",))
