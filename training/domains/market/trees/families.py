"""The three families of trees. Each library is imported only by its own family."""

from __future__ import annotations

from training.domains.market.trees.recipe import Boosting


class XGBoost(Boosting):
    family, title = "xgboost", "XGBoost"

    def library(self):
        from training.domains.market.trees.with_xgboost import XGBoostLibrary

        return XGBoostLibrary()


class LightGBM(Boosting):
    family, title = "lightgbm", "LightGBM"

    def library(self):
        from training.domains.market.trees.with_lightgbm import LightGBMLibrary

        return LightGBMLibrary()


class CatBoost(Boosting):
    family, title = "catboost", "CatBoost"
    chunk = 25  # a chunk costs CatBoost more than the other libraries

    def library(self):
        from training.domains.market.trees.with_catboost import CatBoostLibrary

        return CatBoostLibrary()
