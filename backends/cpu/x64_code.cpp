#include "backends/cpu/x64_code.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace tenon::cpu::x64 {

#ifdef __linux__

std::shared_ptr<const Executable> Executable::make(const std::vector<uint8_t>& code) {
  void* p = mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  std::memcpy(p, code.data(), code.size());
  if (mprotect(p, code.size(), PROT_READ | PROT_EXEC) != 0) {
    munmap(p, code.size());
    return nullptr;
  }
  return std::shared_ptr<const Executable>(new Executable(p, code.size()));
}
Executable::~Executable() { munmap(memory_, bytes_); }

#else

std::shared_ptr<const Executable> Executable::make(const std::vector<uint8_t>&) { return nullptr; }
Executable::~Executable() = default;

#endif

}  // namespace tenon::cpu::x64
