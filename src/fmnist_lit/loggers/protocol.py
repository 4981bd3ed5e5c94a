"""The messages of TensorBoard's event files, which it promises to nobody; this is the one place that imports them."""

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.versions_pb2 import VersionDef
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

__all__ = [
    "AttrValue",
    "Event",
    "GraphDef",
    "HParamsPluginData",
    "NodeDef",
    "SessionLog",
    "Summary",
    "TensorShapeProto",
    "VersionDef",
]
