"""The six families of networks."""

from __future__ import annotations

from torch import nn

from training.domains.market.decisions import CLASSES
from training.domains.market.networks.convolutional import ConvolutionalNet
from training.domains.market.networks.fusion import FusionNet
from training.domains.market.networks.patches import PatchNet
from training.domains.market.networks.recipe import Network
from training.domains.market.networks.recurrent import RecurrentNet
from training.domains.market.networks.settings import (
    ConvolutionalSettings,
    FusionSettings,
    PatchesSettings,
    RecurrentSettings,
    VariatesSettings,
)
from training.domains.market.networks.variates import VariateNet


class Lstm(Network):
    family, title, settings_type = "lstm", "LSTM", RecurrentSettings

    def one(self, features):
        return RecurrentNet(nn.LSTM, features, len(CLASSES), self.settings.model)


class Gru(Network):
    family, title, settings_type = "gru", "GRU", RecurrentSettings

    def one(self, features):
        return RecurrentNet(nn.GRU, features, len(CLASSES), self.settings.model)


class Tcn(Network):
    family, title, settings_type = "tcn", "TCN", ConvolutionalSettings

    def one(self, features):
        return ConvolutionalNet(features, len(CLASSES), self.settings.model)


class PatchTst(Network):
    family, title, settings_type = "patchtst", "PatchTST", PatchesSettings

    def one(self, features):
        return PatchNet(features, len(CLASSES), self.settings.model)


class Tft(Network):
    family, title, settings_type = "tft", "TFT", FusionSettings

    def one(self, features):
        return FusionNet(features, len(CLASSES), self.settings.model)


class ITransformer(Network):
    family, title, settings_type = "itransformer", "iTransformer", VariatesSettings

    def one(self, features):
        return VariateNet(features, len(CLASSES), self.settings.model)
