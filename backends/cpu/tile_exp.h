// The numbers of e^x in f32 with AVX-512, for vector code (tile_math-inl.h) and machine code
// (tile_native.cpp).
#pragma once

namespace tenon::cpu {

inline constexpr struct {
  double lowest = -105, highest = 90;  // beyond these the result is 0 or inf in any case
  double log2_e = 1.44269504088896341;
  double ln2_high = 0.693359375, ln2_low = -2.12194440e-4;
  signed char round_to_32nd = 5 << 4 | 8;  // what the rounding instruction wants to be told
  double shift = 393216;           // 1.5 * 2^18, whose last bit is a 32nd
  double third = 1.0 / 6;
  float table[32] = {
      // 2^(i / 32)
      1.0f,          1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f, 1.1637249f,
      1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
      1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f,  1.61049032f, 1.64575553f,
      1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f,
  };
} kExp;

}  // namespace tenon::cpu
