"""Keras layers, one concept a file."""

from kvision.layers.anchors import Anchors
from kvision.layers.classification_head import ClassificationHead, MeanLogits
from kvision.layers.detections import DetectionSelection, MaskScores, PixelBoxes
from kvision.layers.dropping import DropPath, PatchDropout
from kvision.layers.grid import TokensToGrid
from kvision.layers.losses import BoxLoss, MaskLoss, RPNLoss
from kvision.layers.mixed_patches import (
    DetailScores,
    MixedPatches,
    MixedTokensToGrid,
    MultiScalePositionEmbedding,
    RegionScores,
)
from kvision.layers.mlp import MLP, SwiGLU
from kvision.layers.normalization import (
    FrozenBatchNormalization,
    ImageNormalization,
    LayerNormalization,
)
from kvision.layers.patch_embedding import ClassToken, PatchEmbedding
from kvision.layers.position_embedding import (
    PositionEmbedding,
    PositionEncodingGenerator,
    RelativePositionBias,
    SinCosPositionEmbedding1D,
    SinCosPositionEmbedding2D,
)
from kvision.layers.preprocessing import ImagePreprocessing
from kvision.layers.proposals import ProposalSelection
from kvision.layers.pyramid import FeaturePyramid
from kvision.layers.roi_align import ROIAlign
from kvision.layers.roi_heads import BoxHead, MaskHead
from kvision.layers.rpn import RPN
from kvision.layers.self_attention import SelfAttention
from kvision.layers.standardized import GroupNormalization, StandardizedConv2D
from kvision.layers.stems import ConvStem, PatchifyStem
from kvision.layers.subsampled_attention import SubsampledAttention
from kvision.layers.targets import AnchorTargets, MaskTargets, ROITargets
from kvision.layers.token_pooling import AttentionPooling, AveragePooling, TokenPooling
from kvision.layers.token_pruning import (
    KeptTokensToGrid,
    PrunedTransformerBlock,
    TokenPruning,
    TokenScorer,
)
from kvision.layers.transformer import LayerScale, TransformerBlock
from kvision.layers.window_attention import WindowAttention

__all__ = [
    "MLP",
    "RPN",
    "AnchorTargets",
    "Anchors",
    "AttentionPooling",
    "AveragePooling",
    "BoxHead",
    "BoxLoss",
    "ClassToken",
    "ClassificationHead",
    "ConvStem",
    "DetailScores",
    "DetectionSelection",
    "DropPath",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "GroupNormalization",
    "ImageNormalization",
    "ImagePreprocessing",
    "KeptTokensToGrid",
    "LayerNormalization",
    "LayerScale",
    "MaskHead",
    "MaskLoss",
    "MaskScores",
    "MaskTargets",
    "MeanLogits",
    "MixedPatches",
    "MixedTokensToGrid",
    "MultiScalePositionEmbedding",
    "PatchDropout",
    "PatchEmbedding",
    "PatchifyStem",
    "PixelBoxes",
    "PositionEmbedding",
    "PositionEncodingGenerator",
    "ProposalSelection",
    "PrunedTransformerBlock",
    "ROIAlign",
    "ROITargets",
    "RPNLoss",
    "RegionScores",
    "RelativePositionBias",
    "SelfAttention",
    "SinCosPositionEmbedding1D",
    "SinCosPositionEmbedding2D",
    "StandardizedConv2D",
    "SubsampledAttention",
    "SwiGLU",
    "TokenPooling",
    "TokenPruning",
    "TokenScorer",
    "TokensToGrid",
    "TransformerBlock",
    "WindowAttention",
]
