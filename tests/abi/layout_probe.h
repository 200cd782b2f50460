// Reads the structs and constants of the contract header and writes a C program that prints their layout, and
// that checks TN_COVERS for every field at every prefix size. Generated, so that no field can be forgotten.
#pragma once

#include <string>

namespace abi_test {

// `header`: text of tenon_plugin.h.
std::string layout_probe(const std::string& header);

}  // namespace abi_test
