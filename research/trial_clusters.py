"""How many different things were tried: rows whose returns move together are one thing.

The clusters are those of average linkage on one minus the correlation of period returns, cut where
the average correlation between two clusters falls below a threshold. M. Lopez de Prado, M. J.
Lewis, Detection of False Investment Strategies Using Unsupervised Learning Methods (Quantitative
Finance, 2019), section 4, count trials by clusters of correlated returns; they choose the number of
clusters by silhouettes, here it follows from a threshold, so that one more row cannot redraw the
rest.

Pure functions over ``returns``, rows x periods, NaN where a row's window does not reach. Memory is
bounded by ``MOST_LEADERS`` squared, whatever the number of rows.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from research.candles import Floats, Ints
from research.errors import InputError
from research.metrics import YEAR_DAYS

__all__ = ["LEAST_COMMON", "Matrix", "clusters_of", "row_keys", "sharpe_of_clusters"]

# Rows whose windows share fewer periods cannot be compared: they count apart.
LEAST_COMMON: Final = 10
# Up to so many rows are clustered as they are; of more, those that are all but equal are merged
# first, each with the first row that it correlates with by ``ALIKE``.
MANY: Final = 1_500
ALIKE: Final = 0.95
MOST_LEADERS: Final = 2_000
BLOCK: Final = 512

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Group:
    """Rows of one window: their ``columns``, and for each row its returns in units of their own."""

    rows: Ints
    columns: Ints
    units: Matrix


def clusters_of(returns: Matrix, digests: npt.NDArray[np.uint8], correlation: float) -> Ints:
    """The cluster of each row, numbered from 0; -1 for a row that never moved.

    ``digests``, rows x bytes: rows with the same are one. Two clusters are one where the average
    correlation of their rows is at least ``correlation``. Beyond ``MOST_LEADERS`` rows that are no
    others' like, a row joins the cluster of the leader that it correlates with by ``correlation``,
    or else counts for itself: the number is then too high rather than too low.
    """
    labels = np.full(len(returns), -1, np.int64)
    moved = np.flatnonzero(np.nan_to_num(np.abs(returns)).max(axis=1, initial=0.0) > 0.0)
    if not len(moved):
        return labels
    _, first, same = np.unique(row_keys(digests[moved]), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # the rows as they came, not as their digests sort
    place = np.argsort(order, kind="stable")
    distinct = _labels_of_distinct(returns[moved[first[order]]], correlation)
    labels[moved] = distinct[place[same.ravel()]]
    return labels


def sharpe_of_clusters(returns: Matrix, labels: Ints, step_days: int) -> Floats:
    """The annual Sharpe ratio of each cluster's aggregate; NaN where it does not vary.

    The aggregate weighs its members by one over the variance of their returns (Lopez de Prado,
    Lewis, 2019, section 4.2), in each period those that were there. Periods of ``step_days`` days.
    """
    sparse = _scipy("sparse")

    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        return np.empty(0)
    there = ~np.isnan(returns[rows])
    known = np.where(there, returns[rows], np.float32(0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.nanvar(returns[rows].astype(np.float64), axis=1)
    weights = np.zeros(len(rows))
    np.divide(1.0, variance, out=weights, where=variance > 0.0)
    # Within a cluster only their proportions count; the sum must not leave the range of a float.
    weights = np.where(weights > 0.0, weights, 1.0) / max(float(weights.max()), 1.0)
    members = sparse.csr_matrix((weights, (labels[rows], np.arange(len(rows)))))
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = (members @ known) / (members @ there.astype(np.float32))
        count = (~np.isnan(whole)).sum(axis=1)
        mean = np.nansum(whole, axis=1) / count
        spread = np.sqrt(np.nansum((whole - mean[:, None]) ** 2, axis=1) / (count - 1))
        sharpe = mean / spread * np.sqrt(YEAR_DAYS / step_days)
    return np.where(np.isfinite(sharpe), sharpe, np.nan)


def _scipy(name: str) -> Any:
    """A module of scipy. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as err:
        raise InputError(
            f"scipy cannot be imported: {err}",
            field="trials",
            remedy="It comes with the extra evidence: make install.",
        ) from err


def row_keys(rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Rows of bytes as one value each, which can be sorted."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()


def _labels_of_distinct(returns: Matrix, correlation: float) -> Ints:
    groups, merges = _groups(returns), len(returns) > MANY
    leads: list[_Group] = []  # the leaders of each group
    leader_of = np.full(len(returns), -1, np.int64)  # positions among all leaders, group by group
    count = 0
    for group in groups:
        chosen = np.arange(len(group.rows))
        if merges:
            room = MOST_LEADERS - count
            chosen, of = _led(group.units, room, max(ALIKE, correlation))
            leader_of[group.rows] = np.where(of >= 0, of + count, -1)
        else:
            leader_of[group.rows] = count + chosen
        leads.append(_Group(group.rows[chosen], group.columns, group.units[chosen]))
        count += len(chosen)
    clusters = _linked(returns, leads, correlation)
    labels = np.where(leader_of >= 0, clusters[leader_of], -1)
    _place_the_rest(labels, groups, leads, clusters, correlation)
    return _as_they_came(labels)


def _as_they_came(labels: Ints) -> Ints:
    """The same clusters, numbered from 0 in the order of their first rows."""
    _, first, of = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    return rank[of.ravel()].astype(np.int64)


def _groups(returns: Matrix) -> list[_Group]:
    """The rows by their windows, in order of appearance."""
    there = ~np.isnan(returns)
    windows, of = np.unique(row_keys(np.packbits(there, axis=1)), return_inverse=True)
    groups = []
    for k in range(len(windows)):
        rows = np.flatnonzero(of.ravel() == k)
        columns = np.flatnonzero(there[rows[0]])
        groups.append(_Group(rows, columns, _units(returns[np.ix_(rows, columns)])))
    return sorted(groups, key=lambda one: int(one.rows[0]))


def _units(returns: Matrix) -> Matrix:
    """Each row less its mean, at length one, so that a product of two is their correlation.

    0 for a row that does not vary, and for all where there are too few periods.
    """
    if returns.shape[1] < LEAST_COMMON:
        return np.zeros_like(returns)
    centred = returns.astype(np.float64) - returns.mean(axis=1, dtype=np.float64, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # A row that stands still may be left with what its mean was rounded by.
    still = length <= 1e-7 * np.abs(returns).max(axis=1, initial=0.0)[:, None]
    return np.where(still, 0.0, centred / np.where(still, 1.0, length)).astype(np.float32)


def _led(units: Matrix, most: int, least: float) -> tuple[Ints, Ints]:
    """Leaders, of which there are at most ``most``, and each row's place among them (-1: none).

    A row follows the leader before it that it is most like, if they correlate by ``least``, or
    leads.
    """
    leads = np.empty((max(most, 0), units.shape[1]), np.float32)
    chosen: list[int] = []
    of = np.full(len(units), -1, np.int64)
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        if chosen:
            alike = block @ leads[: len(chosen)].T
            best = alike.argmax(axis=1)
            found = alike[np.arange(len(block)), best] >= least
            of[start : start + BLOCK][found] = best[found]
        rest = start + np.flatnonzero(of[start : start + BLOCK] < 0)
        among = units[rest] @ units[rest].T >= least
        for i, row in enumerate(rest):
            if of[row] >= 0:
                continue
            if len(chosen) == most:
                break
            followers = rest[among[i] & (of[rest] < 0)]
            of[followers] = of[row] = len(chosen)
            leads[len(chosen)] = units[row]
            chosen.append(int(row))
    return np.array(chosen, np.int64), of


def _linked(returns: Matrix, leads: list[_Group], correlation: float) -> Ints:
    """The cluster of each leader, from 1 on."""
    hierarchy, spatial = _scipy("cluster.hierarchy"), _scipy("spatial.distance")

    ends = np.cumsum([len(one.rows) for one in leads])
    if ends[-1] == 1:
        return np.ones(1, np.int64)
    alike = np.zeros((ends[-1], ends[-1]), np.float32)
    for i, one in enumerate(leads):
        here = slice(ends[i] - len(one.rows), ends[i])
        alike[here, here] = one.units @ one.units.T
        for j in range(i):
            other = leads[j]
            there = slice(ends[j] - len(other.rows), ends[j])
            common = np.intersect1d(one.columns, other.columns, assume_unique=True)
            mine = _units(returns[np.ix_(one.rows, common)])
            theirs = _units(returns[np.ix_(other.rows, common)])
            alike[here, there] = mine @ theirs.T
            alike[there, here] = alike[here, there].T
    distance = np.clip(1.0 - alike.astype(np.float64), 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = hierarchy.linkage(spatial.squareform(distance, checks=False), "average")
    return np.asarray(hierarchy.fcluster(tree, 1.0 - correlation + 1e-9, "distance"), np.int64)


def _place_the_rest(
    labels: Ints, groups: list[_Group], leads: list[_Group], clusters: Ints, correlation: float
) -> None:
    """Rows for which there was no room among the leaders: with the nearest of them, or alone."""
    begin, alone = 0, int(clusters.max()) + 1
    for group, leaders in zip(groups, leads, strict=True):
        own = clusters[begin : begin + len(leaders.rows)]
        begin += len(leaders.rows)
        rest = np.flatnonzero(labels[group.rows] < 0)
        for start in range(0, len(rest), BLOCK):
            part = rest[start : start + BLOCK]
            found = np.arange(alone, alone + len(part))
            if len(own):
                alike = group.units[part] @ leaders.units.T
                best = alike.argmax(axis=1)
                near = alike[np.arange(len(part)), best] >= correlation
                found = np.where(near, own[best], found)
            labels[group.rows[part]] = found
            alone += len(part)
