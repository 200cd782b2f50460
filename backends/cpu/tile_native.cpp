// Phases as machine code for AVX-512: values stay in registers, and every operation is the one that the
// interpreter's vector code does, so that no bit differs.
#include <hwy/detect_targets.h>

#include "backends/cpu/tile_draft.h"

#if HWY_ARCH_X86_64

#include <xbyak/xbyak.h>

#include <algorithm>
#include <bit>
#include <map>
#include <variant>

#include "backends/cpu/tile_exp.h"

namespace tenon::cpu {
namespace {

using Xbyak::Address;
using Xbyak::Opmask;
using Xbyak::Reg64;
using Xbyak::RegExp;
using Xbyak::Xmm;
using Xbyak::Zmm;
using Xbyak::util::ptr;
using Xbyak::util::ptr_b;

const Reg64 kStreams = Xbyak::util::rdi, kCount = Xbyak::util::rsi, kScalars = Xbyak::util::rdx,
            kRowScalars = Xbyak::util::rcx, kPool = Xbyak::util::r8;
const Reg64 kIndex = kStreams;  // once the addresses of the streams are in registers
const Reg64 kBases[NativeCode::kMaxStreams] = {
    Xbyak::util::rax, Xbyak::util::r9,  Xbyak::util::r10, Xbyak::util::r11, Xbyak::util::rbx,
    Xbyak::util::rbp, Xbyak::util::r12, Xbyak::util::r13, Xbyak::util::r14, Xbyak::util::r15};
constexpr size_t kSaved = 4;                   // from here on the caller wants them back
const Opmask kTail = Xbyak::util::k1;          // of the last elements
constexpr int kExpTable = 12;                  // where it begins in the pool
constexpr size_t kNumbers = 44;                // where they begin in the pool
constexpr size_t kVectors = 32;                // registers
constexpr int kLanes = 16, kBlockBytes = 128;  // of a vector; of a scalar's block (TileRef)
constexpr int kAheadBytes = 1024;              // how far before its use a stream is fetched
constexpr size_t kMostCode = 1 << 16;          // bytes

// Predicates of comparisons: ordered ones, so that NaN compares as in C++.
enum Predicate : uint8_t {
  equal = 0,
  not_equal = 4,
  less = 0x11,
  less_equal = 0x12,
  greater_equal = 0x1d,
  greater = 0x1e
};

// The last operand of an instruction: a register, or a number in memory that is the same for all lanes.
class Source {
 public:
  Source(const Zmm& reg) : from_(reg) {}
  Source(const Address& memory) : from_(memory) {}
  operator const Xbyak::Operand&() const {
    return std::visit([](const auto& o) -> const Xbyak::Operand& { return o; }, from_);
  }
  const Address* memory() const { return std::get_if<Address>(&from_); }
  const Zmm& reg() const { return std::get<Zmm>(from_); }

 private:
  std::variant<Zmm, Address> from_;
};

class PhaseCompiler {
 public:
  PhaseCompiler(const TileDraft& draft, const TilePhase& phase) : draft_(draft), phase_(phase) {}

  std::shared_ptr<const NativeCode> run() {
    const size_t n = phase_.reads.size() + phase_.writes.size();
    if (n > NativeCode::kMaxStreams) return nullptr;
    // The pool begins with the masks of 0 to 15 elements, a vector of bytes that are 1, and a table.
    for (uint32_t i = 0; i < 8; ++i)
      pool_.push_back(((1u << (2 * i)) - 1) | (((1u << (2 * i + 1)) - 1) << 16));
    for (int i = 0; i < 4; ++i) pool_.push_back(0x01010101u);
    for (const float t : kExp.table) pool_.push_back(std::bit_cast<uint32_t>(t));

    body(false);  // to see how many registers are left for numbers
    hold_numbers();
    c_.reset();
    for (size_t i = kSaved; i < n; ++i) c_.push(kBases[i]);
    for (size_t i = 0; i < n; ++i) c_.mov(kBases[i], ptr[kStreams + 8 * i]);
    for (const auto& [at, reg] : held_) copy(Zmm(reg), at.source());
    c_.xor_(kIndex, kIndex);
    Xbyak::Label loop, tail, end;
    c_.sub(kCount, kLanes);
    c_.jb(tail, Xbyak::CodeGenerator::T_NEAR);
    c_.L(loop);
    body(false);
    c_.add(kIndex, kLanes);
    c_.sub(kCount, kLanes);
    c_.jae(loop, Xbyak::CodeGenerator::T_NEAR);
    c_.L(tail);
    c_.add(kCount, kLanes);
    c_.je(end, Xbyak::CodeGenerator::T_NEAR);
    c_.kmovw(kTail, ptr[kPool + kCount * 2]);
    body(true);
    c_.L(end);
    c_.vzeroupper();
    for (size_t i = n; i-- > kSaved;) c_.pop(kBases[i]);
    c_.ret();
    if (failed_ || !c_.setProtectModeRE(false)) return nullptr;

    auto native = std::make_shared<NativeCode>();
    native->run = c_.getCode<NativeCode::Run>();
    native->memory = code_;
    native->pool = std::move(pool_);
    return native;
  }

 private:
  struct Place {  // of a number, or of a vector of several
    enum Base : uint8_t { scalars, row_scalars, pool } base;
    int disp;
    bool vector;
    auto operator<=>(const Place&) const = default;
    Source source() const {
      const RegExp at = (base == scalars       ? kScalars
                         : base == row_scalars ? kRowScalars
                                               : kPool) +
                        static_cast<size_t>(disp);
      return vector ? ptr[at] : ptr_b[at];
    }
  };

  // One vector of every stream. All is read before anything is written, since a result may lie where an
  // operand did.
  void body(bool tail) {
    tail_ = tail;
    vectors_.clear();
    masks_.clear();
    free_vectors_.clear();
    free_masks_.clear();
    for (size_t r = kVectors - held_.size(); r-- > 0;) free_vectors_.push_back(static_cast<int>(r));
    for (int k = 8; k-- > kTail.getIdx() + 1;) free_masks_.push_back(k);
    if (!tail) fetch_ahead();
    for (size_t i = 0; i < phase_.steps.size(); ++i) {
      step(phase_.steps[i]);
      forget_after(i);
    }
    for (size_t k = 0; k < phase_.writes.size(); ++k) store(phase_.writes[k], phase_.reads.size() + k);
  }

  void fetch_ahead() {
    const TileProgram& p = draft_.program;
    for (size_t i = 0; i < phase_.reads.size(); ++i) {
      const TileValue& v = draft_.value(phase_.reads[i]);
      if (v.kind != TileRef::input || size_of(v.lane) != 4 || !is_stream(p, p.inputs[v.index])) continue;
      c_.prefetcht0(ptr[stream(i, 4) + kAheadBytes]);
    }
  }

  // --- registers ---
  Zmm take_vector() { return Zmm(take(free_vectors_)); }
  Opmask take_mask() { return Opmask(take(free_masks_)); }
  int take(std::vector<int>& free) {
    if (free.empty()) {
      failed_ = true;
      return 2;  // the code is thrown away
    }
    const int r = free.back();
    free.pop_back();
    used_ = std::max(used_, kVectors - held_.size() - free_vectors_.size());
    return r;
  }
  void give(const Zmm& vector) { free_vectors_.push_back(vector.getIdx()); }
  void give(const Opmask& mask) { free_masks_.push_back(mask.getIdx()); }

  // Frees the registers of values that no later step of the phase reads and that are not written.
  void forget_after(size_t i) {
    const auto done = [&](int v) {
      if (std::find(phase_.writes.begin(), phase_.writes.end(), v) != phase_.writes.end()) return false;
      return std::none_of(phase_.steps.begin() + static_cast<std::ptrdiff_t>(i) + 1, phase_.steps.end(),
                          [&](const TileStep& s) { return s.reads(v); });
    };
    for (auto* held : {&vectors_, &masks_})
      for (auto it = held->begin(); it != held->end();)
        if (done(it->first)) {
          (held == &vectors_ ? free_vectors_ : free_masks_).push_back(it->second);
          it = held->erase(it);
        } else {
          ++it;
        }
  }

  // --- operands ---

  // The numbers read most often get the registers that the loop leaves free.
  void hold_numbers() {
    std::vector<std::pair<int, Place>> by_reads;
    for (const auto& [place, reads] : reads_) by_reads.emplace_back(-reads, place);
    std::sort(by_reads.begin(), by_reads.end());
    const size_t free = kVectors - std::min(used_, kVectors);
    for (size_t i = 0; i < std::min(free, by_reads.size()); ++i)
      held_[by_reads[i].second] = static_cast<int>(kVectors - 1 - i);
  }
  // A number that is the same for all lanes, or a vector of several: a register that holds it, or its memory.
  Source uniform(Place::Base base, int disp, bool vector = false) {
    const Place place{base, disp, vector};
    if (const auto it = held_.find(place); it != held_.end()) return Zmm(it->second);
    ++reads_[place];
    return place.source();
  }
  Source exp_table(int first) { return uniform(Place::pool, 4 * (kExpTable + first), true); }
  Source constant(uint32_t bits) {
    const auto at = std::find(pool_.begin() + kNumbers, pool_.end(), bits);
    const auto index = static_cast<int>(at - pool_.begin());
    if (at == pool_.end()) pool_.push_back(bits);
    return uniform(Place::pool, 4 * index);
  }
  Source number(double v) { return constant(std::bit_cast<uint32_t>(static_cast<float>(v))); }
  // `to` may have a mask.
  void copy(const Zmm& to, const Source& from) {
    if (from.memory() && from.memory()->isBroadcast())
      c_.vbroadcastss(to, ptr[from.memory()->getRegExp()]);
    else
      c_.vmovups(to, from);
  }

  RegExp stream(size_t i, int element_bytes) const { return kBases[i] + kIndex * element_bytes; }
  size_t read_index(int v) const {
    return static_cast<size_t>(std::find(phase_.reads.begin(), phase_.reads.end(), v) - phase_.reads.begin());
  }

  // A value as the last operand: its register, or the memory of a number that is the same for all lanes.
  Source last(int v) {
    const TileValue& value = draft_.value(v);
    if (value.kind == TileRef::scalar) return uniform(Place::scalars, kBlockBytes * value.index);
    if (value.kind == TileRef::row_scalar) return uniform(Place::row_scalars, kBlockBytes * value.index);
    return vector(v);
  }
  Zmm vector(int v) {
    if (const auto it = vectors_.find(v); it != vectors_.end()) return Zmm(it->second);
    const Zmm r = take_vector();
    c_.vmovups(tail_ ? r | kTail | Xbyak::util::T_z : r, ptr[stream(read_index(v), 4)]);
    vectors_[v] = r.getIdx();
    return r;
  }
  // A value in a register; a number may be put into one that the caller gives back through `spare`.
  Zmm first(int v, std::vector<Zmm>& spare) { return in_register(last(v), spare); }
  Zmm in_register(const Source& source, std::vector<Zmm>& spare) {
    if (!source.memory()) return source.reg();
    const Zmm r = take_vector();
    copy(r, source);
    spare.push_back(r);
    return r;
  }
  Opmask mask(int v) {
    if (const auto it = masks_.find(v); it != masks_.end()) return Opmask(it->second);
    const Zmm r = take_vector();
    const Opmask k = take_mask();
    const Xmm bytes(r.getIdx());
    c_.vmovdqu8(tail_ ? bytes | kTail | Xbyak::util::T_z : bytes, ptr[stream(read_index(v), 1)]);
    c_.vptestmb(k, bytes, bytes);
    give(r);
    masks_[v] = k.getIdx();
    return k;
  }

  // --- steps ---
  void step(const TileStep& s) {
    std::vector<Zmm> spare;
    if (is_comparison(s.op)) {
      compare(s, spare);
    } else {
      const Zmm out = take_vector();
      compute(s, out, spare);
      vectors_[s.out] = out.getIdx();
    }
    for (const Zmm& r : spare) give(r);
  }

  void compare(const TileStep& s, std::vector<Zmm>& spare) {
    const Zmm a = first(s.in[0], spare);
    const Opmask k = take_mask();
    if (draft_.value(s.in[0]).lane == Lane::i32)
      c_.vpcmpd(k, a, last(s.in[1]), of_integers(s.op));
    else
      c_.vcmpps(k, a, last(s.in[1]), of_reals(s.op));
    masks_[s.out] = k.getIdx();
  }
  static uint8_t of_reals(TileOp op) {
    switch (op) {
      case TileOp::equal:
        return equal;
      case TileOp::not_equal:
        return not_equal;
      case TileOp::less:
        return less;
      case TileOp::less_equal:
        return less_equal;
      case TileOp::greater:
        return greater;
      default:
        return greater_equal;
    }
  }
  static uint8_t of_integers(TileOp op) {
    switch (op) {
      case TileOp::equal:
        return 0;
      case TileOp::not_equal:
        return 4;
      case TileOp::less:
        return 1;
      case TileOp::less_equal:
        return 2;
      case TileOp::greater:
        return 6;
      default:
        return 5;
    }
  }

  void compute(const TileStep& s, const Zmm& out, std::vector<Zmm>& spare) {
    const int a = s.in[0], b = s.in[1];
    const auto x = [&] { return first(a, spare); };
    switch (s.op) {
      case TileOp::add:
        return c_.vaddps(out, x(), last(b));
      case TileOp::sub:
        return c_.vsubps(out, x(), last(b));
      case TileOp::mul:
        return c_.vmulps(out, x(), last(b));
      case TileOp::div:
        return c_.vdivps(out, x(), last(b));
      case TileOp::minimum:
      case TileOp::maximum: {
        const Zmm left = x(), right = first(b, spare);
        return extreme(left, right, s.op == TileOp::minimum ? less : greater, out);
      }
      case TileOp::neg:
        return c_.vpxord(out, x(), constant(0x80000000u));
      case TileOp::abs:
        return c_.vpandd(out, x(), constant(0x7fffffffu));
      case TileOp::square: {
        const Zmm v = x();
        return c_.vmulps(out, v, v);
      }
      case TileOp::relu: {  // x <= 0 ? 0 : x
        const Zmm v = x();
        return blend_if(v, number(0), less_equal, v, number(0), out);
      }
      case TileOp::leaky_relu: {  // x > 0 ? x : x slope
        const Zmm v = x();
        c_.vmulps(out, v, number(s.p0));
        return blend_if(v, number(0), greater, out, v, out);
      }
      case TileOp::clamp: {
        const Zmm v = x();
        blend_if(v, number(s.p0), less, v, number(s.p0), out);
        return blend_if(out, number(s.p1), greater, out, number(s.p1), out);
      }
      case TileOp::sqrt:
        return c_.vsqrtps(out, last(a));
      case TileOp::rsqrt:
        c_.vsqrtps(out, last(a));
        return c_.vdivps(out, in_register(number(1), spare), out);
      case TileOp::reciprocal:
        return c_.vdivps(out, in_register(number(1), spare), last(a));
      case TileOp::exp:
        return exponential(last(a), out, spare);
      case TileOp::sigmoid:
        return sigmoid(x(), out, spare);
      case TileOp::silu: {
        const Zmm v = x(), t = take_vector();
        sigmoid(v, t, spare);
        c_.vmulps(out, v, t);
        return give(t);
      }
      case TileOp::copy:
        if (draft_.value(a).lane == Lane::f32) return copy(out, last(a));
        return copy(out | mask(a) | Xbyak::util::T_z, number(1));
      case TileOp::where: {
        const Opmask k = mask(a);
        const Zmm no = first(s.in[2], spare);
        return c_.vblendmps(out | k, no, last(b));
      }
      default:
        failed_ = true;
    }
  }

  // out = a (predicate) limit ? yes : no
  void blend_if(const Zmm& a, const Source& limit, Predicate predicate, const Zmm& no, const Source& yes,
                const Zmm& out) {
    const Opmask k = take_mask();
    c_.vcmpps(k, a, limit, predicate);
    c_.vblendmps(out | k, no, yes);
    give(k);
  }
  // The smaller or larger of two; NaN in either gives NaN (the second's by the comparison, the first's by the
  // blend).
  void extreme(const Zmm& a, const Zmm& b, Predicate predicate, const Zmm& out) {
    const Zmm t = take_vector();
    const Opmask k = take_mask();
    c_.vcmpps(k, a, b, predicate);
    c_.vblendmps(t | k, b, a);
    c_.vcmpps(k, a, a, equal);  // a is a number
    c_.vblendmps(out | k, a, t);
    give(t), give(k);
  }
  // As exp_f32 of tile_math-inl.h, instruction by instruction.
  void exponential(const Source& x, const Zmm& out, std::vector<Zmm>& spare) {
    const Zmm r = take_vector(), n = take_vector(), p = take_vector();
    c_.vminps(r, in_register(number(kExp.highest), spare), x);
    c_.vmaxps(r, in_register(number(kExp.lowest), spare), r);
    c_.vmulps(n, r, number(kExp.log2_e));
    c_.vrndscaleps(n, n, kExp.round_to_32nd);
    c_.vfnmadd231ps(r, n, number(kExp.ln2_high));
    c_.vfnmadd231ps(r, n, number(kExp.ln2_low));
    c_.vaddps(p, n, number(kExp.shift));
    c_.vpermi2ps(p, in_register(exp_table(0), spare), exp_table(16));
    copy(out, number(kExp.third));
    c_.vfmadd213ps(out, r, number(0.5));
    c_.vfmadd213ps(out, r, number(1));
    c_.vmulps(out, out, r);
    c_.vfmadd213ps(out, p, p);
    c_.vscalefps(out, out, n);
    give(r), give(n), give(p);
  }
  // 1 / (1 + e^-x)
  void sigmoid(const Zmm& x, const Zmm& out, std::vector<Zmm>& spare) {
    const Zmm t = take_vector();
    c_.vpxord(t, x, constant(0x80000000u));
    exponential(t, out, spare);
    c_.vaddps(out, out, number(1));
    c_.vdivps(out, in_register(number(1), spare), out);
    give(t);
  }

  void store(int v, size_t at) {
    if (const auto it = vectors_.find(v); it != vectors_.end()) {
      const Address to = ptr[stream(at, 4)];
      return c_.vmovups(tail_ ? to | kTail : to, Zmm(it->second));
    }
    const Zmm r = take_vector();
    const Xmm bytes(r.getIdx());
    c_.vmovdqu8(bytes | Opmask(masks_.at(v)) | Xbyak::util::T_z, ptr[kPool + 32]);
    const Address to = ptr[stream(at, 1)];
    c_.vmovdqu8(tail_ ? to | kTail : to, bytes);
    give(r);
  }

  const TileDraft& draft_;
  const TilePhase& phase_;
  std::shared_ptr<Xbyak::CodeGenerator> code_ =
      std::make_shared<Xbyak::CodeGenerator>(kMostCode, Xbyak::DontSetProtectRWE);
  Xbyak::CodeGenerator& c_ = *code_;
  std::vector<uint32_t> pool_;
  std::map<int, int> vectors_, masks_;  // values in registers
  std::vector<int> free_vectors_, free_masks_;
  size_t used_ = 0;             // registers at most, without those held
  std::map<Place, int> reads_;  // numbers read from memory, and how often
  std::map<Place, int> held_;   // numbers in registers for the whole loop
  bool tail_ = false, failed_ = false;
};

}  // namespace

std::shared_ptr<const NativeCode> compile_phase(const TileDraft& draft, const TilePhase& phase) {
  try {
    return PhaseCompiler(draft, phase).run();
  } catch (const Xbyak::Error&) {  // more code than there is room for
    return nullptr;
  }
}

}  // namespace tenon::cpu

#endif
