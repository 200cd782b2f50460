// What a tensor holds, as numbers.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "core/graph/graph.h"

namespace tenon::test {

// Fails the test where the graph has an error.
inline std::vector<double> values(Graph& g, Tensor t) {
  const auto r = g.to_host(t);
  INFO(r.status().message() << g.status().message());
  REQUIRE(r.is_ok());
  std::vector<double> v;
  for (int64_t i = 0; i < r->numel(); ++i) v.push_back(r->at(i));
  return v;
}
inline std::vector<double> values(Tensor t) {
  REQUIRE(t.valid());
  return values(t.graph(), t);
}

}  // namespace tenon::test
