"""The allow-list of scikit-learn's classes: what each is, and which of its attributes a prediction needs.

On the list are estimators whose prediction cannot leave the arrays that it is given: those that predict by NumPy's own
checked operations, and those that hand their arrays to native code, which trusts them, but whose arrays can be checked
whole (`sklearn_checks`, `sklearn_trees`). What native code keeps in a form of its own (search trees, losses, bins) is
never read: the predictor makes it anew from what was checked (`perch.predictor.runtimes.sklearn_parts`).

Of a class with a row in `READ` only those attributes are read. The others, whatever they hold, stay in the file, and
have the values that the constructor would give them.

Not listed: what calls functions of the file's own (a `FunctionTransformer` is served if it has none), and whatever
nobody has asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

_LISTED = {
    "classifier with probabilities": """
        sklearn.calibration.CalibratedClassifierCV
        sklearn.discriminant_analysis.LinearDiscriminantAnalysis
        sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis
        sklearn.dummy.DummyClassifier
        sklearn.ensemble._bagging.BaggingClassifier
        sklearn.ensemble._forest.ExtraTreesClassifier
        sklearn.ensemble._forest.RandomForestClassifier
        sklearn.ensemble._gb.GradientBoostingClassifier
        sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier
        sklearn.ensemble._stacking.StackingClassifier
        sklearn.ensemble._voting.VotingClassifier
        sklearn.ensemble._weight_boosting.AdaBoostClassifier
        sklearn.linear_model._logistic.LogisticRegression
        sklearn.linear_model._logistic.LogisticRegressionCV
        sklearn.naive_bayes.BernoulliNB
        sklearn.naive_bayes.CategoricalNB
        sklearn.naive_bayes.ComplementNB
        sklearn.naive_bayes.GaussianNB
        sklearn.naive_bayes.MultinomialNB
        sklearn.neighbors._classification.KNeighborsClassifier
        sklearn.neural_network._multilayer_perceptron.MLPClassifier
        sklearn.svm._classes.NuSVC
        sklearn.svm._classes.SVC
        sklearn.tree._classes.DecisionTreeClassifier
        sklearn.tree._classes.ExtraTreeClassifier
    """,
    "classifier": """
        sklearn.linear_model._perceptron.Perceptron
        sklearn.linear_model._ridge.RidgeClassifier
        sklearn.linear_model._ridge.RidgeClassifierCV
        sklearn.linear_model._stochastic_gradient.SGDClassifier
        sklearn.svm._classes.LinearSVC
    """,
    "regressor": """
        sklearn.dummy.DummyRegressor
        sklearn.ensemble._bagging.BaggingRegressor
        sklearn.ensemble._forest.ExtraTreesRegressor
        sklearn.ensemble._forest.RandomForestRegressor
        sklearn.ensemble._gb.GradientBoostingRegressor
        sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor
        sklearn.ensemble._stacking.StackingRegressor
        sklearn.ensemble._voting.VotingRegressor
        sklearn.ensemble._weight_boosting.AdaBoostRegressor
        sklearn.linear_model._base.LinearRegression
        sklearn.linear_model._bayes.ARDRegression
        sklearn.linear_model._bayes.BayesianRidge
        sklearn.linear_model._coordinate_descent.ElasticNet
        sklearn.linear_model._coordinate_descent.ElasticNetCV
        sklearn.linear_model._coordinate_descent.Lasso
        sklearn.linear_model._coordinate_descent.LassoCV
        sklearn.linear_model._glm.glm.GammaRegressor
        sklearn.linear_model._glm.glm.PoissonRegressor
        sklearn.linear_model._glm.glm.TweedieRegressor
        sklearn.linear_model._huber.HuberRegressor
        sklearn.linear_model._least_angle.Lars
        sklearn.linear_model._least_angle.LassoLars
        sklearn.linear_model._quantile.QuantileRegressor
        sklearn.linear_model._ridge.Ridge
        sklearn.linear_model._ridge.RidgeCV
        sklearn.linear_model._stochastic_gradient.SGDRegressor
        sklearn.multioutput.MultiOutputRegressor
        sklearn.neighbors._regression.KNeighborsRegressor
        sklearn.neural_network._multilayer_perceptron.MLPRegressor
        sklearn.svm._classes.LinearSVR
        sklearn.svm._classes.NuSVR
        sklearn.svm._classes.SVR
        sklearn.tree._classes.DecisionTreeRegressor
        sklearn.tree._classes.ExtraTreeRegressor
    """,
    "transformer": """
        sklearn.compose._column_transformer.ColumnTransformer
        sklearn.decomposition._incremental_pca.IncrementalPCA
        sklearn.decomposition._pca.PCA
        sklearn.decomposition._truncated_svd.TruncatedSVD
        sklearn.feature_extraction.text.TfidfTransformer
        sklearn.feature_selection._from_model.SelectFromModel
        sklearn.feature_selection._univariate_selection.SelectKBest
        sklearn.feature_selection._univariate_selection.SelectPercentile
        sklearn.feature_selection._variance_threshold.VarianceThreshold
        sklearn.impute._base.MissingIndicator
        sklearn.impute._base.SimpleImputer
        sklearn.impute._knn.KNNImputer
        sklearn.pipeline.FeatureUnion
        sklearn.preprocessing._data.Binarizer
        sklearn.preprocessing._data.MaxAbsScaler
        sklearn.preprocessing._data.MinMaxScaler
        sklearn.preprocessing._data.Normalizer
        sklearn.preprocessing._data.PowerTransformer
        sklearn.preprocessing._data.QuantileTransformer
        sklearn.preprocessing._data.RobustScaler
        sklearn.preprocessing._data.StandardScaler
        sklearn.preprocessing._discretization.KBinsDiscretizer
        sklearn.preprocessing._encoders.OneHotEncoder
        sklearn.preprocessing._encoders.OrdinalEncoder
        sklearn.preprocessing._function_transformer.FunctionTransformer
        sklearn.preprocessing._polynomial.PolynomialFeatures
        sklearn.preprocessing._target_encoder.TargetEncoder
    """,
    "vectorizer": """
        sklearn.feature_extraction.text.CountVectorizer
        sklearn.feature_extraction.text.TfidfVectorizer
    """,
    "part": """
        sklearn.calibration._CalibratedClassifier
        sklearn.calibration._SigmoidCalibration
        sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor
        sklearn.isotonic.IsotonicRegression
        sklearn.preprocessing._label.LabelBinarizer
        sklearn.preprocessing._label.LabelEncoder
    """,
    "pipeline": "sklearn.pipeline.Pipeline",
}

CLASSES: Mapping[str, str] = {name: role for role, names in _LISTED.items() for name in names.split()}
"""What each allowed class is: a classifier, with probabilities or without, a regressor, a transformer, …"""

SEARCHES = frozenset({
    "sklearn.model_selection._search.GridSearchCV",
    "sklearn.model_selection._search.RandomizedSearchCV",
})  # fmt: skip
"""A search that is over is its `best_estimator_`, and nothing else of it is read."""

UNUSED = frozenset({"_optimizer", "_random_state", "random_state", "loss_function_", "_loss_function_", "memory",
                    "_sklearn_output_config"})  # fmt: skip
"""Attributes that prediction never reads, whichever class has them, and that may be of any type: they stay unread."""

_TREE = "tree_ n_classes_ n_outputs_ criterion splitter"
_FOREST = "estimators_ n_classes_ n_outputs_ criterion"
_BAGGING = "estimators_ estimators_features_ n_classes_ n_estimators"
_KERNEL = (
    "support_ support_vectors_ _n_support _dual_coef_ _intercept_ _probA _probB _gamma kernel degree coef0 cache_size"
    " _sparse shape_fit_ probability break_ties decision_function_shape"
)
_NEIGHBOURS = (
    "_fit_X _y _fit_method n_neighbors weights metric metric_params p leaf_size effective_metric_"
    " effective_metric_params_ n_samples_fit_ outputs_2d_"
)
_BOOSTED = "estimators_ init_ n_classes_ n_trees_per_iteration_ learning_rate loss alpha"
_BINNED = "_predictors _baseline_prediction n_trees_per_iteration_ is_categorical_ loss quantile"
_STACKED = "estimators_ final_estimator_ stack_method_ passthrough _label_encoder"
_GLM = "coef_ intercept_ power link fit_intercept"
_ONE_HOT = (
    "categories_ handle_unknown sparse_output dtype drop _infrequent_enabled _infrequent_indices"
    " _default_to_infrequent_mappings _drop_idx_after_grouping"
)
_ORDINAL = (
    "categories_ handle_unknown unknown_value encoded_missing_value dtype _infrequent_enabled _infrequent_indices"
    " _default_to_infrequent_mappings"
)
_WORDS = (
    "vocabulary_ input analyzer tokenizer preprocessor token_pattern stop_words ngram_range lowercase strip_accents"
    " binary dtype"
)
_SCORED = "scores_ pvalues_"

_READ = {
    "AdaBoostClassifier": "estimators_ estimator_weights_ n_classes_",
    "AdaBoostRegressor": "estimators_ estimator_weights_",
    "BaggingClassifier": _BAGGING,
    "BaggingRegressor": _BAGGING,
    "CalibratedClassifierCV": "calibrated_classifiers_",
    "_CalibratedClassifier": "estimator calibrators method classes",
    "ColumnTransformer": "transformers_ sparse_output_ transformer_weights",
    "CountVectorizer": _WORDS,
    "DecisionTreeClassifier": _TREE,
    "DecisionTreeRegressor": _TREE,
    "DummyClassifier": "_strategy class_prior_ n_classes_ n_outputs_ constant",
    "DummyRegressor": "constant_ n_outputs_",
    "ExtraTreeClassifier": _TREE,
    "ExtraTreeRegressor": _TREE,
    "ExtraTreesClassifier": _FOREST,
    "ExtraTreesRegressor": _FOREST,
    "FeatureUnion": "transformer_list transformer_weights",
    "FunctionTransformer": "func inverse_func",
    "GammaRegressor": _GLM,
    "GradientBoostingClassifier": _BOOSTED,
    "GradientBoostingRegressor": _BOOSTED,
    "HistGradientBoostingClassifier": _BINNED,
    "HistGradientBoostingRegressor": _BINNED,
    "IsotonicRegression": "X_thresholds_ y_thresholds_ X_min_ X_max_ out_of_bounds increasing_",
    "KNeighborsClassifier": _NEIGHBOURS,
    "KNeighborsRegressor": _NEIGHBOURS,
    "MultiOutputRegressor": "estimators_",
    "NuSVC": _KERNEL,
    "NuSVR": _KERNEL,
    "OneHotEncoder": _ONE_HOT,
    "OrdinalEncoder": _ORDINAL,
    "Pipeline": "steps",
    "PoissonRegressor": _GLM,
    "PolynomialFeatures": "degree interaction_only include_bias order",
    "RandomForestClassifier": _FOREST,
    "RandomForestRegressor": _FOREST,
    "SVC": _KERNEL,
    "SVR": _KERNEL,
    "SelectFromModel": "estimator_ threshold importance_getter norm_order max_features max_features_",
    "SelectKBest": _SCORED + " k",
    "SelectPercentile": _SCORED + " percentile",
    "StackingClassifier": _STACKED,
    "StackingRegressor": _STACKED,
    "TfidfVectorizer": _WORDS + " _tfidf use_idf norm sublinear_tf",
    "TreePredictor": "nodes raw_left_cat_bitsets",
    "TweedieRegressor": _GLM,
    "VotingClassifier": "estimators_ le_ voting weights",
    "VotingRegressor": "estimators_ weights",
}

_COMMON = "_sklearn_version classes_ n_features_in_ feature_names_in_"

READ: Mapping[str, frozenset[str]] = {
    name: frozenset(f"{read} {_COMMON}".split()) for name, read in _READ.items()
}  # fmt: skip
"""By the short name of a class: the attributes that are read of it."""
