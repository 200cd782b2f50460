// Printable forms of a graph, for people and for Graphviz.
#pragma once

#include <string>

#include "core/graph/graph.h"

namespace tenon {

// One line a node: "%7 f32[64, 10] = matmul(%3, %5) {transpose_a=0, transpose_b=1}".
std::string dump_text(const Graph& g);
// A Graphviz digraph of the same.
std::string dump_dot(const Graph& g);

}  // namespace tenon
