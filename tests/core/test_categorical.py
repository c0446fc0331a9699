import math
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.core import HDF5Matrix, from_categorical, to_categorical
from kflow.core.arrays import blocks

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
label_types = ["int8", "uint8", "int64", "uint64", "float32", "float64", ">i4"]
labels = hnp.arrays(st.sampled_from(label_types), shapes, elements=st.integers(0, 6))


@settings(deadline=None)
@given(y=labels, spare=st.integers(0, 3), dtype=st.sampled_from(["float32", "uint8", "bool", "float64"]))
def test_rows_are_those_of_the_identity_matrix(y, spare, dtype):
    """Encoding is picking rows of the identity matrix, once a last axis of 1 is dropped."""
    classes = 7 + spare
    plain = y.reshape(y.shape[:-1]) if y.ndim > 1 and y.shape[-1] == 1 else y

    got = to_categorical(y, classes, dtype)

    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.eye(classes, dtype=dtype)[plain.astype(int)])


@given(y=hnp.arrays("int32", st.integers(1, 20), elements=st.integers(0, 50)))
def test_decoding_gives_the_labels_back(y):
    """The largest entry of each row is at its label, and the width is the largest label plus one."""
    got = to_categorical(y)

    assert got.shape == (y.size, y.max() + 1)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.argmax(axis=-1), y)
    np.testing.assert_array_equal(got.sum(axis=-1), 1)


def test_more_labels_than_are_encoded_at_a_time():
    """Labels are encoded in blocks, and the seams do not show."""
    y = np.random.default_rng(0).integers(0, 3, 50_001)

    np.testing.assert_array_equal(to_categorical(y, 3), np.eye(3)[y])


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (2, [0, 0, 1]),
        ([True, False], [[0, 1], [1, 0]]),
        (["1", "0"], [[0, 1], [1, 0]]),
        (np.array([b"1", b"0"]), [[0, 1], [1, 0]]),
        (np.array([1, 0.0], object), [[0, 1], [1, 0]]),
        ([[1], [0]], [[0, 1], [1, 0]]),
        ([[1, 0]], [[[0, 1], [1, 0]]]),
    ],
)
def test_what_counts_as_labels(y, expected):
    """Whole numbers of any type are labels; the number of classes is found when it is not given."""
    np.testing.assert_array_equal(to_categorical(y), expected)
    np.testing.assert_array_equal(to_categorical(y, 0), expected)
    np.testing.assert_array_equal(to_categorical(y, num_classes=np.int8(4)).shape[-1], 4)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, -1], "label -1 at index 1 is negative"),
        (-2.0, r"label -2.0 is negative"),
        ([[0], [0, 1]], "y has rows of different lengths, which no array can hold"),
        ([[0, 1], [3, 9]], r"label 3 at index \(1, 0\) does not fit in 3 classes \(0 to 2\)"),
        (np.array([2**64 - 1], "uint64"), "label 18446744073709551615 at index 0 does not fit"),
        ([0.0, 1.9], "label 1.9 at index 1 is not a whole number"),
        ([0.0, math.nan], "label nan at index 1 is not a whole number"),
        ([math.inf], "label inf at index 0 is not a whole number"),
        ([0, "cat"], "label 'cat' at index 1 is not a number"),
        ([0, None], "label None at index 1 is not a number"),
        (["1", "x"], "label 'x' at index 1 is not a number; name the classes with classes="),
        (["1.5"], "label 1.5 at index 0 is not a whole number"),
    ],
)
def test_a_wrong_label_is_named_with_its_index(y, message):
    """No label is silently wrapped, cut or dropped."""
    y = np.array(y, object) if "cat" in str(y) else y

    with pytest.raises(ValueError, match=message):
        to_categorical(y, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "no labels to tell the number of classes from; give num_classes"),
        (([-3],), ValueError, "label -3 at index 0 is negative; labels count from 0, or are named with classes="),
        (
            ([3], 3),
            ValueError,
            r"does not fit in 3 classes \(0 to 2\); if labels count from 1, name them with classes=",
        ),
        (([1], -1), ValueError, "num_classes must not be negative, but is -1"),
        (([1], 2.0), TypeError, r"num_classes must be an integer, not 2\.0"),
        (([1], 2, "U1"), TypeError, "dtype must be a number type or bool, not <U1"),
        (([1j],), TypeError, "labels must be whole numbers, not of type complex128"),
    ],
)
def test_other_arguments_are_checked(arguments, error, message):
    """Each argument has its own message."""
    with pytest.raises(error, match=message):
        to_categorical(*arguments)


def test_no_labels_give_no_rows():
    """Empty input keeps the width that was asked for."""
    assert to_categorical([], 4).shape == (0, 4)
    assert to_categorical(np.zeros((0, 1), int), 4).shape == (0, 4)


@given(y=hnp.arrays("int32", st.integers(1, 20), elements=st.integers(0, 6)), smoothing=st.floats(0, 1))
def test_smoothing_is_the_formula_of_keras(y, smoothing):
    """1 becomes 1 - s + s / n, and 0 becomes s / n."""
    got = to_categorical(y, 7, "float64", label_smoothing=smoothing)

    np.testing.assert_allclose(got, np.eye(7)[y] * (1 - smoothing) + smoothing / 7, atol=1e-15)


any_labels = st.one_of(st.text(max_size=3), st.integers(-(2**70), 2**70), st.none(), st.tuples(st.booleans()))


@settings(deadline=None)
@given(st.data(), st.lists(any_labels, min_size=1, max_size=8, unique=True))
def test_any_labels_come_back(data, classes):
    """What is encoded with some classes is decoded to the labels that went in."""
    y = np.empty(data.draw(st.integers(0, 9)), object)
    y[:] = [data.draw(st.sampled_from(classes)) for _ in y]

    encoded = to_categorical(y, classes=classes)

    assert encoded.shape == (len(y), len(classes))
    assert from_categorical(encoded, classes).tolist() == y.tolist()


@settings(deadline=None)
@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=8, unique=True),
    st.sampled_from(["int8", "int64", "uint8", "float32", "object"]),
    st.data(),
)
def test_numbers_as_classes(classes, dtype, data):
    """Numbers of any type are found among classes that do not count from 0, and others are refused."""
    if dtype == "uint8":
        classes = [number + 100 for number in classes]
    y = data.draw(st.lists(st.sampled_from(classes), max_size=9))

    got = to_categorical(np.array(y, dtype), classes=classes, sparse=True)

    assert got.tolist() == [classes.index(label) for label in y]
    stranger = next(number for number in range(128) if number not in classes)
    with pytest.raises(ValueError, match=rf"label {stranger}(\.0)? at index {len(y)} is none of the"):
        to_categorical(np.array([*y, stranger], dtype), classes=classes)


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (["dog", "cat"], ["cat", "dog"], [1, 0]),
        (np.array([b"dog", b"cat"]), ["cat", "dog"], [1, 0]),
        (["\u00e9".encode()], ["e", "\u00e9"], [1]),
        ([["b"], ["a"]], ("a", "b"), [1, 0]),
        ([1, "a"], ["a", 1], [1, 0]),
        ([2.5, -1.0], np.array([-1.0, 2.5]), [1, 0]),
        ([True], [False, True], [1]),
        ([2**63, 5], [5, 2**63], [1, 0]),
        ("b", ["a", "b"], 1),
    ],
)
def test_labels_that_are_classes(y, classes, expected):
    """Texts, bytes, mixtures, fractions and single labels are found by ``==``."""
    assert to_categorical(y, classes=classes, sparse=True).tolist() == expected


@pytest.mark.parametrize(
    "classes",
    [[2**53 + 1, 0.5], [2**63, -1], [2**53 + 1, 2.0**53], [2.0**53, 2**53 + 1], ["a\0", "a"], [(1, 2), (3, 4)]],
    ids=repr,
)
def test_labels_come_back_as_they_went_in(classes):
    """No label is rounded, made a float or cut, one by one either; nor taken for one that is equal after that."""
    rows = to_categorical(classes, classes=classes)

    decoded = [from_categorical(rows, classes), *(from_categorical(row, classes) for row in rows)]

    np.testing.assert_array_equal(rows, np.eye(2))
    assert [each.tolist() for each in decoded] == [classes, *classes]
    assert list(map(type, decoded[0].tolist())) == list(map(type, classes))
    assert decoded[1].shape == ()


def test_large_labels_in_a_list_are_not_rounded():
    """NumPy would make floats of all, and take the second for the first."""
    classes = [2**53, 2**53 + 1]

    assert to_categorical([2.0**53, 2**53 + 1], classes=classes, sparse=True).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (["cat", "dgo"], {"classes": ["cat", "dog"]}),
            ValueError,
            "label 'dgo' at index 1 is none of the 2 classes; did you mean 'dog'",
        ),
        (
            (np.array([b"cta"]), {"classes": ["cat", "dog"]}),
            ValueError,
            "label b'cta' at index 0 .* did you mean 'cat'",
        ),
        (([[3, 0]], {"classes": [3, 4]}), ValueError, r"label 0 at index \(0, 1\) is none of the 2 classes, 3, 4$"),
        (([0], {"classes": range(1, 50)}), ValueError, "is none of the 49 classes, 1, 2, .*, 10, ...$"),
        ((["a"], {"classes": ["a", "b", "a"]}), ValueError, "classes has 'a' twice"),
        (([1.0], {"classes": [1.0, math.nan]}), ValueError, "nan cannot be a class"),
        ((["a"], {"classes": []}), ValueError, "classes is empty"),
        ((["a"], {"classes": "abc"}), TypeError, "classes must be a list of labels, one for each class, not 'abc'"),
        (([1], {"classes": 3}), TypeError, "classes must be a list of labels"),
        (([1], {"classes": [1, 2], "num_classes": 3}), ValueError, "num_classes is 3, but there are 2 classes"),
        (([1], {"label_smoothing": 1.5}), ValueError, "label_smoothing must be between 0 and 1, but is 1.5"),
        (([1], {"label_smoothing": math.nan}), ValueError, "label_smoothing must be between 0 and 1"),
        (([1], {"label_smoothing": 0.1, "dtype": "uint8"}), TypeError, "label_smoothing makes fractions"),
        (([1], {"label_smoothing": 0.1, "sparse": True}), TypeError, "need a float type and dense rows"),
        (([200], {"sparse": True, "dtype": "int8"}), TypeError, "dtype int8 cannot number 201 classes"),
        ((3, {"lazy": True}), ValueError, "a single label has no rows"),
        (([], {"lazy": True}), ValueError, "no labels to tell the number of classes from"),
    ],
)
def test_the_additions_are_checked(arguments, error, message):
    """Each mistake has its own message."""
    y, options = arguments

    with pytest.raises(error, match=message):
        to_categorical(y, **options)


def test_the_sparse_form_is_what_the_sparse_loss_takes():
    """Class numbers, checked, without a last axis of 1: int32, or the integer type that is asked for."""
    got = to_categorical([[2.0], [0.0]], 3, sparse=True)

    assert (got.tolist(), got.dtype) == ([2, 0], np.int32)
    assert to_categorical([1], dtype="uint8", sparse=True).dtype == np.uint8
    with pytest.raises(ValueError, match="label 3 at index 1"):
        to_categorical([0, 3], 3, sparse=True)


@settings(deadline=None)
@given(
    y=hnp.arrays("int64", hnp.array_shapes(max_dims=2, max_side=5), elements=st.integers(0, 4)),
    options=st.fixed_dictionaries(
        {}, optional={"classes": st.just([4, 3, 2, 1, 0]), "label_smoothing": st.just(0.5), "sparse": st.just(True)}
    ).filter(lambda options: len({"label_smoothing", "sparse"} & set(options)) < 2),
    data=st.data(),
)
def test_a_lazy_form_is_the_eager_form(y, options, data):
    """Every index of a view gives what it gives of the encoded array, also after pickling."""
    whole = to_categorical(y, **options)
    view = pickle.loads(pickle.dumps(to_categorical(y, lazy=True, **options)))
    key = data.draw(hnp.basic_indices(whole.shape) | hnp.integer_array_indices(whole.shape[:1]))

    assert (view.shape, view.dtype, view.ndim, len(view), view.size) == (
        whole.shape,
        whole.dtype,
        whole.ndim,
        len(whole),
        whole.size,
    )
    np.testing.assert_array_equal(view[key], whole[key])
    np.testing.assert_array_equal(np.asarray(view), whole)
    np.testing.assert_array_equal(list(view), whole)


def test_a_lazy_form_of_a_file(tmp_path):
    """Labels in an HDF5 file are checked once, with their row in the window, and encoded when they are read."""
    y = np.arange(50) % 7
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"], file["bad"] = y, np.where(np.arange(50) == 31, 9, y)
    source = HDF5Matrix(tmp_path / "y.h5", "y", 10, 40)

    view = to_categorical(source, lazy=True)

    np.testing.assert_array_equal(view[[25, 3, -1]], np.eye(7)[y[10:40][[25, 3, -1]]])
    np.testing.assert_array_equal(to_categorical(source), np.asarray(view))
    with pytest.raises(ValueError, match="label 9 at index 21 does not fit in 7 classes"):
        to_categorical(HDF5Matrix(tmp_path / "y.h5", "bad", 10, 40), 7, lazy=True)
    with pytest.raises(AttributeError):
        view.shape = (1,)


def test_a_wrong_label_in_a_later_block_of_a_view_has_its_place():
    """The index counts from the first label of all."""
    y = np.zeros(300_000, "int64")
    y[299_998] = -4

    with pytest.raises(ValueError, match="label -4 at index 299998 is negative"):
        to_categorical(y, lazy=True)


@pytest.mark.parametrize("key", [slice(5, None), slice(None, None, -2), slice(9, 3, -1), [8, 7, 2], 7])
@pytest.mark.parametrize("options", [{}, {"classes": range(10)}, {"sparse": True}])
def test_a_label_that_turns_wrong_behind_a_view_has_its_place(key, options):
    """Whichever rows are read, the index is that in all labels."""
    y = np.arange(10)
    view = to_categorical(y, lazy=True, **options)
    y[7] = -1

    with pytest.raises(ValueError, match="label -1 at index 7 is n"):
        view[key]


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_threads_change_no_bit(monkeypatch, dtype):
    """Whatever the number of processors; a wrong label is named with its index in any of them."""
    y = np.random.default_rng(0).integers(0, 7, 2_000_000).astype(dtype)
    many, smooth = to_categorical(y, 7, "uint8"), to_categorical(y, 7, label_smoothing=0.1)
    wrong = y.copy()
    wrong[[1_900_000, 1_950_000]] = 9
    with pytest.raises(ValueError, match=r"label 9(\.0)? at index 1900000 does not fit in 7 classes"):
        to_categorical(wrong, 7)
    monkeypatch.setattr(blocks, "_THREADS", 1)

    assert (
        many.tobytes() == to_categorical(y, 7, "uint8").tobytes() == np.eye(7, dtype="uint8")[y.astype(int)].tobytes()
    )
    assert smooth.tobytes() == to_categorical(y, 7, label_smoothing=0.1).tobytes()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("y", [[0, 2**70], [0, 1e300], np.array([0, 2**64 - 1], "uint64"), [0.0, 2.0**53]])
def test_a_label_that_no_class_can_have_is_named(y, lazy):
    """Rows that long are never asked for, and no number in the message is made up."""
    with pytest.raises(ValueError, match=r"label \S+ at index 1 is too large to be the number of a class; name"):
        to_categorical(y, lazy=lazy)
    with pytest.raises(ValueError, match="num_classes must not be so large, but is 18014398509481984"):
        to_categorical([0], 2**54)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": None}, TypeError, "label_smoothing must be a number between 0 and 1, not None"),
        ({"classes": {"a": 0, "b": None}}, ValueError, r"classes must number the labels 0 to 1, each once, and not {"),
        ({"classes": ["a", "b"]}, ValueError, r"label \['a'\] at index 0 is none of the 2 classes, 'a', 'b'"),
    ],
)
def test_what_is_no_class_or_share_is_named(options, error, message):
    """Python's own complaint would be about a comparison or a hash."""
    with pytest.raises(error, match=message):
        to_categorical([["a"], ["a", "b"]] if isinstance(options.get("classes"), list) else ["a"], **options)


@given(hnp.arrays("float64", hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(0.01, 1)))
def test_predictions_are_decoded_to_the_most_likely_class(rows):
    """The label is that of the greatest entry, and of the first if several are greatest."""
    names = [f"class {number}" for number in range(rows.shape[-1])]

    np.testing.assert_array_equal(from_categorical(rows), rows.argmax(-1))
    np.testing.assert_array_equal(from_categorical(rows, names), np.array(names)[rows.argmax(-1)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0, 1.0], [0.0, 0.0]],), "the row at index 1 is all zeros or has a NaN, so it names no class"),
        (([[[0.5, math.nan]]],), r"the row at index \(0, 0\) is all zeros or has a NaN"),
        (([[0, 1]], ["a"]), "the rows have 2 columns, but there are 1 classes"),
        ((3,), r"expected rows with a column for each class, not shape \(\)"),
    ],
)
def test_rows_that_name_no_class_are_refused(arguments, message):
    """Nothing is decoded to the first class by accident."""
    with pytest.raises(ValueError, match=message):
        from_categorical(*arguments)


def test_arrays_load_neither_keras_nor_tensorflow():
    """Arrays need NumPy alone, also for views."""
    code = (
        "import sys; from kflow.core import from_categorical, normalize, to_categorical\n"
        "normalize(to_categorical(['b'], classes=['a', 'b'], lazy=True), lazy=True)[0]\n"
        "assert from_categorical(to_categorical([1], dtype='bfloat16')) == 1\n"
        "print({'keras', 'tensorflow', 'h5py'} & set(sys.modules))"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "set()\n"


def test_classes_may_be_numbered_by_a_dictionary():
    """As `class_indices` of Keras's generators; the order in which it was filled does not matter."""
    encoded = to_categorical(["a", "b"], classes={"b": 1, "a": 0})

    np.testing.assert_array_equal(encoded, np.eye(2))
    np.testing.assert_array_equal(to_categorical(["a", "b"], classes={"a": 1, "b": 0}), np.eye(2)[::-1])


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ({"a": 1, "b": 2}, ValueError, "classes must number the labels 0 to 1, each once, and not {'a': 1, 'b': 2}"),
        ({"a": 0, "b": 0}, ValueError, "classes must number the labels 0 to 1, each once"),
        ({"a"}, TypeError, "classes is a set, which has no order; give a list"),
    ],
)
def test_classes_without_a_sure_order_are_refused(classes, error, message):
    """A column that changes from run to run would be a silent error."""
    with pytest.raises(error, match=message):
        to_categorical(["a"], classes=classes)


def test_masked_labels_are_refused():
    """As in the lazy form: a label that is hidden would count like the others."""
    with pytest.raises(TypeError, match="y has masked entries"):
        to_categorical(np.ma.array([0, 1, 2], mask=[0, 1, 0]))


def test_tuples_are_labels():
    """Anything that can be hashed is; the inverse gives them back."""
    classes = [("a", 1), ("b", 2), ("a", 2)]
    labels = [("a", 2), ("a", 1)]

    encoded = to_categorical(labels, classes=classes)

    np.testing.assert_array_equal(encoded, [[0, 0, 1], [1, 0, 0]])
    assert list(from_categorical(encoded, classes)) == labels
