"""The option table, and what is made of it: settings, example file, reference."""

from mtaq.config.addresses import HostPort
from mtaq.config.delivery import DeliverOptions, DnsOptions, Security, TlsPolicyName
from mtaq.config.errors import ConfigErrors
from mtaq.config.loading import DEFAULT_PATH, check_merged, load
from mtaq.config.process import LogFormat, LogLevel, LogOptions, ProcessOptions
from mtaq.config.queues import Encoding, QueueOptions, QueueType
from mtaq.config.ranges import Ranges
from mtaq.config.reception import ListenOptions, ReceiveOptions, Relay, Strictness
from mtaq.config.settings import ChangedKeys, Given, Raw, Settings, changed_keys, merge_live
from mtaq.config.values import DeliveryTimeouts

__all__ = [
    "DEFAULT_PATH",
    "ChangedKeys",
    "ConfigErrors",
    "DeliverOptions",
    "DeliveryTimeouts",
    "DnsOptions",
    "Encoding",
    "Given",
    "HostPort",
    "ListenOptions",
    "LogFormat",
    "LogLevel",
    "LogOptions",
    "ProcessOptions",
    "QueueOptions",
    "QueueType",
    "Ranges",
    "Raw",
    "ReceiveOptions",
    "Relay",
    "Security",
    "Settings",
    "Strictness",
    "TlsPolicyName",
    "changed_keys",
    "check_merged",
    "load",
    "merge_live",
]
