"""The allow-list of operators that a `.pt2` graph may call.

All of them are functions of tensors and numbers: they read what they are given and return something new. No operator
is here that opens a file, draws a random number, shows memory as it was found (`empty`), or reads beside what it
was given (`as_strided`); a test asks torch's own schemas about each. Names and overloads are torch's.

Two kinds need care. What a *view* gives is (or may be) the memory of what it was given. An operator *in place* writes
into its first argument; it may do so only where nothing else can see it (`perch.artifacts.pt2_graph` follows the
views), so that no request leaves a trace in the weights, or in another request.
"""

from __future__ import annotations

from collections.abc import Mapping


def _listed(text: str) -> frozenset[str]:
    """`add.Tensor,Scalar relu` stands for add.Tensor, add.Scalar and relu.default."""
    found = set()
    for word in text.split():
        name, _, overloads = word.partition(".")
        found |= {f"aten.{name}.{overload}" for overload in (overloads or "default").split(",")}
    return frozenset(found)


VIEWS = _listed(
    """
    _unsafe_view adjoint alias broadcast_tensors broadcast_to chunk contiguous detach diagonal einsum expand
    expand_as flatten.using_ints lift_fresh meshgrid.default,indexing movedim.intlist,int moveaxis.intlist,int mT
    narrow numpy_T permute positive ravel reshape reshape_as select.int slice.Tensor split.Tensor,sizes,default
    split_with_sizes squeeze.default,dim,dims swapaxes swapdims t tensor_split.sections,indices
    to.device,dtype,other,dtype_layout transpose.int type_as unbind.int unflatten.int unfold unsafe_chunk
    unsafe_split.Tensor unsafe_split_with_sizes unsqueeze view view_as dropout feature_dropout alpha_dropout
    feature_alpha_dropout
    """
)
"""May give the memory that they were given. (A dropout gives its input when nobody trains.)"""

_ELEMENTWISE = _listed(
    """
    __and__.Tensor,Scalar __lshift__.Tensor,Scalar __or__.Tensor,Scalar __rshift__.Tensor,Scalar
    __xor__.Tensor,Scalar abs acos acosh add.Tensor,Scalar addcdiv addcmul angle arctan2 asin asinh atan atan2 atanh
    bitwise_and.Tensor,Scalar bitwise_left_shift.Tensor,Tensor_Scalar bitwise_not bitwise_or.Tensor,Scalar
    bitwise_right_shift.Tensor,Tensor_Scalar bitwise_xor.Tensor,Scalar bucketize.Tensor ceil celu
    clamp.default,Tensor clamp_max.default,Tensor clamp_min.default,Tensor clip.default,Tensor clone
    copysign.Tensor,Scalar cos cosh deg2rad div.Tensor,Scalar,Tensor_mode,Scalar_mode
    divide.Tensor,Scalar,Tensor_mode,Scalar_mode elu eq.Tensor,Scalar erf erfc erfinv exp exp2 expm1
    float_power.Tensor_Tensor,Tensor_Scalar,Scalar floor floor_divide.default,Scalar fmax fmin fmod.Tensor,Scalar
    frac ge.Tensor,Scalar gelu glu greater.Tensor,Scalar greater_equal.Tensor,Scalar gt.Tensor,Scalar hardshrink
    hardsigmoid hardswish hardtanh heaviside hypot isclose isfinite isin.Tensor_Tensor,Tensor_Scalar isinf isnan
    le.Tensor,Scalar leaky_relu lerp.Scalar,Tensor less.Tensor,Scalar less_equal.Tensor,Scalar log log10 log1p log2
    log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt.Tensor,Scalar
    masked_fill.Scalar,Tensor maximum minimum mish mul.Tensor,Scalar multiply.Tensor,Scalar nan_to_num
    ne.Tensor,Scalar neg negative not_equal.Tensor,Scalar pow.Tensor_Tensor,Tensor_Scalar,Scalar prelu rad2deg
    reciprocal relu relu6 remainder.Tensor,Scalar,Scalar_Tensor round.default,decimals rsqrt rsub.Tensor,Scalar selu
    sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink sqrt square sub.Tensor,Scalar
    subtract.Tensor,Scalar tan tanh threshold true_divide.Tensor,Scalar trunc
    where.self,ScalarOther,ScalarSelf,Scalar xlogy.Tensor,Scalar_Other max.other min.other
    """
)

_REDUCTIONS = _listed(
    """
    all.default,dim,dims amax amin aminmax any.default,dim,dims argmax argmin argsort.default,stable count_nonzero
    cummax cummin cumprod cumsum diff logcumsumexp logsumexp max.default,dim mean.default,dim median.default,dim
    min.default,dim nanmean nansum norm.Scalar,ScalarOpt_dim,ScalarOpt_dim_dtype,ScalarOpt_dtype
    prod.default,dim_int log_softmax.int softmax.int sort.default,stable std.default,dim,correction
    std_mean.default,dim,correction sum.dim_IntList,default topk var.default,dim,correction
    var_mean.default,dim,correction linalg_vector_norm linalg_norm
    """
)

_LAYERS = _listed(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _native_batch_norm_legit_no_training
    _scaled_dot_product_flash_attention_for_cpu convolution grid_sampler_2d max_pool2d_with_indices
    native_group_norm native_layer_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d addbmm addmm addmv avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bilinear bmm cdist channel_shuffle conv1d.default,padding conv2d.default,padding conv3d.default,padding
    conv_transpose1d conv_transpose2d.input conv_transpose3d.input cosine_similarity dot embedding grid_sampler
    group_norm gru.input gru_cell instance_norm layer_norm linear lstm.input lstm_cell matmul max_pool1d max_pool2d
    max_pool3d mm mv native_channel_shuffle outer pairwise_distance pixel_shuffle pixel_unshuffle rms_norm
    rnn_relu.input rnn_tanh.input rnn_relu_cell rnn_tanh_cell scaled_dot_product_attention tensordot
    upsample_bicubic2d.default,vec upsample_bilinear2d.default,vec upsample_linear1d.default,vec
    upsample_nearest1d.default,vec upsample_nearest2d.default,vec upsample_nearest3d.default,vec
    upsample_trilinear3d.default,vec _softmax _log_softmax _upsample_bilinear2d_aa.default,vec
    _upsample_bicubic2d_aa.default,vec
    """
)

_MOVES = _listed(
    """
    affine_grid_generator arange.default,start,start_step block_diag cat column_stack concat concatenate
    constant_pad_nd diag diag_embed dstack eye flip fliplr flipud full full_like gather hstack im2col index.Tensor
    index_add index_copy index_fill.int_Scalar index_put index_select lift_fresh_copy linspace masked_scatter
    masked_select new_full new_ones new_zeros nonzero one_hot ones ones_like pad reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave.self_int replication_pad1d replication_pad2d replication_pad3d roll
    rot90 scalar_tensor scatter.value,src scatter_add searchsorted.Tensor select_scatter slice_scatter stack take
    take_along_dim tile tril triu vstack zeros zeros_like _to_copy
    """
)

IN_PLACE = _listed(
    """
    alpha_dropout_ dropout_ feature_alpha_dropout_ feature_dropout_ abs_ add_.Tensor,Scalar addcmul_
    bitwise_and_.Tensor bitwise_or_.Tensor celu_ clamp_ clamp_max_ clamp_min_ copy_ cos_ detach_ div_.Tensor,Scalar
    elu_ erf_ exp_ fill_.Scalar,Tensor floor_ gelu_ hardsigmoid_ hardswish_ hardtanh_ index_add_ index_copy_
    index_put_ leaky_relu_ log_ logical_and_ logical_or_ masked_fill_.Scalar,Tensor mish_ mul_.Tensor,Scalar neg_
    pow_.Scalar reciprocal_ relu6_ relu_ rsqrt_ scatter_.src,value selu_ sigmoid_ silu_ sin_ sqrt_ square_
    sub_.Tensor,Scalar tanh_ threshold_ tril_ triu_ zero_
    """
)
"""Write into their first argument, and give it back. A module with `inplace=True` is exported with them."""

OPERATORS = VIEWS | _ELEMENTWISE | _REDUCTIONS | _LAYERS | _MOVES | IN_PLACE

WHOLE = frozenset({"add", "sub", "mul", "floordiv", "mod"})
"""Arithmetic of whole numbers, on sizes: `_operator.mul` in a graph."""

COMPARISONS = frozenset({"ge", "gt", "le", "lt", "eq", "ne"})
"""Comparisons of sizes; in a graph they only lead to assertions."""

ASSERTIONS = _listed(
    """
    _assert_async.default,msg _assert_scalar _assert_tensor_metadata sym_constrain_range
    sym_constrain_range_for_size
    """
)
"""Say again what the export has proved, and give nothing: left out."""

_NO_TRAINING = "is in training mode; call module.eval() before torch.export.export"
_NO_CHANCE = "drops at random; call module.eval() before torch.export.export"
_NO_COUNTING = "counts into its buffers; make it with track_running_stats=False"
_NO_MODE = "has a mode that is none of torch's; torch would read beside what it was given"

PINNED: Mapping[str, Mapping[int, tuple[str, tuple[object, ...], str]]] = {
    **{name: {2: ("train", (False,), _NO_TRAINING)} for name in VIEWS | IN_PLACE if "dropout" in name},
    **{
        f"aten.{name}.input": {6: ("train", (False,), _NO_TRAINING)} for name in ("gru", "lstm", "rnn_relu", "rnn_tanh")
    },
    "aten.batch_norm.default": {5: ("training", (False,), _NO_TRAINING)},
    "aten.instance_norm.default": {5: ("use_input_stats", (False,), _NO_COUNTING)},
    "aten.scaled_dot_product_attention.default": {4: ("dropout_p", (0,), _NO_CHANCE)},
    "aten._scaled_dot_product_flash_attention_for_cpu.default": {3: ("dropout_p", (0,), _NO_CHANCE)},
    **{
        f"aten.{name}.default": {
            2: ("interpolation_mode", (0, 1, 2), _NO_MODE),
            3: ("padding_mode", (0, 1, 2), _NO_MODE),
        }
        for name in ("grid_sampler", "grid_sampler_2d")
    },
}
"""Arguments that make a harmless operator another one: their place, their name, what they may be, and why.

By place, since that is what torch goes by: the name that a file gives to an argument means nothing. An argument that is
left out has torch's default, which is one of the allowed."""

TEXTS = frozenset(
    {"none", "tanh", "same", "valid", "floor", "constant", "reflect", "replicate", "circular", "ij", "xy"}
)
"""Texts that an operator may be given (besides the equation of an einsum).

Not `trunc`: a division of whole numbers that is rounded so dies of the smallest one by -1, which a request may hold."""
