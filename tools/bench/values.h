// Initial values and data that Tenon and its peers make alike, bit for bit. tools/peers/bench_peers.py has
// the same formula, so that losses can be compared without carrying arrays about.
//
// Element i of the array called `name` comes from h = mix(fnv1a(name) + 0x9e3779b9 (i + 1)), all modulo 2^32,
// where fnv1a is the 32-bit FNV-1a hash of the name's bytes and mix is the finaliser of MurmurHash3.
#pragma once

#include <string_view>

#include "core/tensor/host_array.h"

namespace tenon::bench {

// f32, uniform in [centre - half_width, centre + half_width): centre + half_width (2^-23 (h >> 8) - 1), each
// operation rounded to f32; a part of the array, from element `first` on.
HostArray uniform(std::string_view name, const Shape& shape, float centre, float half_width,
                  int64_t first = 0);
// f32 of mean 0 and variance 1.
HostArray data(std::string_view name, const Shape& shape, int64_t first = 0);
// i32 in 0 .. n-1: (h >> 8) mod n.
HostArray integers(std::string_view name, const Shape& shape, int32_t n);
// What a parameter begins with. Matrices, kernels and tables: +-1/sqrt(fan), fan = shape[1], times the
// kernel's area for a convolution; biases +-0.1; gains 1 +- 0.1.
HostArray initial(std::string_view parameter, const Shape& shape);

}  // namespace tenon::bench
