// SPDX-License-Identifier: Apache-2.0
//
// Each misuse that the debug layer finds dies with its message. The classes are named by the checks that find them.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <larder/debug.h>
#include <larder/keeper.h>
#include <larder/object_cache.h>
#include <larder/raw_cache.h>

#include "tests/support/one_cpu.h"

namespace larder {
namespace {

constexpr std::size_t size = 64;

raw_cache::options options_with(debug_checks checks) {
  raw_cache::options chosen;
  chosen.size = size;
  chosen.debug = checks;
  return chosen;
}

// Writes where nobody may, out of AddressSanitizer's sight, which would find it first.
__attribute__((noinline, no_sanitize("address"))) void poke(unsigned char* at, unsigned char value) { *at = value; }

// A cache whose objects stay out, or spoilt: it is never destroyed. The test stays on one CPU, as does the child that
// dies, which else might meet an array that holds none of them.
struct abandoned_cache {
  abandoned_cache(const char* name, const raw_cache::options& chosen) : cache(new raw_cache(name, chosen)) {
    (void)configure_keeper({.period = std::chrono::hours(1)});  // which would find what is spoilt
    static auto* all = new std::vector<raw_cache*>;             // reachable, for leak checkers
    all->push_back(cache);
  }
  tests::stays_on_one_cpu stays;
  raw_cache* cache;
  raw_cache* operator->() const { return cache; }
  unsigned char* get() const { return static_cast<unsigned char*>(cache->try_get()); }
};

// More than a slab holds, so all that the test spoilt is among them.
void get_all(raw_cache& cache) {
  void* objects[200];
  (void)cache.get_many(objects, std::size(objects));
}

std::string line(const std::string& text) {
  return "^larder: debug_layer.cc:[0-9]+: cache \"strict\": " + text + "\n$";
}
const std::string address = "0x[0-9a-f]+";
const std::string object = "object " + address + " of 64 bytes: ";
const std::string memory = "memory " + address + " of 64 bytes: ";
// Functions of the library, then the test's.
const std::string stack = "by thread [0-9]+:(\n    [^\n]+)+";

class OwnershipDeathTest : public testing::Test {
 protected:
  abandoned_cache strict{"strict", options_with(debug_checks::ownership)};
  unsigned char* taken = strict.get();
};

TEST_F(OwnershipDeathTest, PutOfANullPointer) { EXPECT_DEATH(strict->put(nullptr), line("put of a null pointer")); }

TEST_F(OwnershipDeathTest, PutOfMemoryOfNoCache) {
  int foreign = 0;
  EXPECT_DEATH(strict->put(&foreign), line("put of " + address + ", which is in no slab of any cache that is checked"));
}

TEST_F(OwnershipDeathTest, PutOfAnObjectThatIsFree) {
  strict->put(taken);
  EXPECT_DEATH(strict->put(taken), line("put of " + address + ", which is free already \\(put twice\\?\\)"));
}

TEST_F(OwnershipDeathTest, PutOfAnObjectThatWasNeverBuilt) {
  EXPECT_DEATH(strict->put(taken + size), line("put of " + address + ", which was never built"));
}

TEST_F(OwnershipDeathTest, PutOfTheMiddleOfAnObject) {
  EXPECT_DEATH(strict->put(taken + 5),
               line("put of " + address + ", which is 5 bytes after the start of the object at " + address +
                    " of cache \"strict\""));
}

TEST_F(OwnershipDeathTest, PutOfASlabsHeader) {
  EXPECT_DEATH(strict->put(taken - 8),
               line("put of " + address + ", which points into the header of a slab of cache \"strict\""));
}

TEST_F(OwnershipDeathTest, PutOfWhatLiesPastTheObjectsOfASlab) {
  EXPECT_DEATH(strict->put(taken + size * strict->stats().objects_per_slab),
               line("put of " + address + ", which points past the objects of a slab of cache \"strict\""));
}

TEST_F(OwnershipDeathTest, PutOfAnObjectOfAnotherCache) {
  const abandoned_cache other("other", options_with(debug_checks::ownership));
  unsigned char* theirs = other.get();
  EXPECT_DEATH(strict->put(theirs), line("put of " + address + ", which is an object of cache \"other\""));
}

TEST_F(OwnershipDeathTest, PutOfTheMiddleOfAnotherCachesLargeObject) {
  raw_cache::options chosen = options_with(debug_checks::ownership);
  chosen.size = 3 << 20;
  const abandoned_cache other("other", chosen);
  unsigned char* theirs = other.get();
  EXPECT_DEATH(strict->put(theirs + (2 << 20)),
               line("put of " + address + ", which is 2097152 bytes after the start of the object at " + address +
                    " of cache \"other\""));
}

TEST_F(OwnershipDeathTest, PutOfAnObjectWhoseSlabWasGivenBack) {
  strict->put(taken);
  strict->trim();
  EXPECT_DEATH(strict->put(taken), line("put of " + address + ", which is in no slab of any cache that is checked"));
}

TEST_F(OwnershipDeathTest, PutManyOfOneObjectTwice) {
  void* const both[] = {taken, taken};
  EXPECT_DEATH(strict->put_many(both, 2), line("put of " + address + ", which is free already \\(put twice\\?\\)"));
}

TEST_F(OwnershipDeathTest, PutManyWithANullPointer) {
  void* const with_null[] = {taken, nullptr};
  EXPECT_DEATH(strict->put_many(with_null, 2), line("put of a null pointer"));
}

TEST_F(OwnershipDeathTest, PutByTheObjectsOwnConstructor) {
  static raw_cache* cache = nullptr;
  raw_cache::options chosen = options_with(debug_checks::ownership);
  chosen.construct = [](void* self, void*) -> result<void> {
    cache->put(self);
    return {};
  };
  raw_cache recursive("strict", chosen);
  cache = &recursive;
  EXPECT_DEATH((void)recursive.try_get(), line("put of " + address + ", which is under its constructor"));
}

TEST_F(OwnershipDeathTest, PutByTheObjectsOwnDestructor) {
  static raw_cache* cache = nullptr;
  raw_cache::options chosen = options_with(debug_checks::ownership);
  chosen.destroy = [](void* self, void*) { cache->put(self); };
  const abandoned_cache recursive("strict", chosen);
  cache = recursive.cache;
  cache->put(recursive.get());
  EXPECT_DEATH(cache->trim(), line("put of " + address + ", which is under its destructor"));
}

TEST_F(OwnershipDeathTest, PutByTheObjectsOwnReset) {
  static raw_cache* cache = nullptr;
  raw_cache::options chosen = options_with(debug_checks::ownership);
  chosen.reset = [](void* self, void*) { cache->put(self); };
  const abandoned_cache recursive("strict", chosen);
  cache = recursive.cache;
  void* mine = recursive.get();
  EXPECT_DEATH(cache->put(mine), line("put of " + address + ", which is being put already"));
}

TEST_F(OwnershipDeathTest, PutOfAnObjectWhoseConstructorFailed) {
  static void* failed = nullptr;
  raw_cache::options chosen = options_with(debug_checks::ownership);
  chosen.construct = [](void* self, void*) -> result<void> {
    failed = self;
    return error_from(EIO);
  };
  raw_cache failing("strict", chosen);
  EXPECT_EQ(failing.try_get(), nullptr);
  EXPECT_DEATH(failing.put(failed),
               line("put of " + address + ", which is destroyed, or was never built because its constructor failed"));
}

TEST_F(OwnershipDeathTest, DestroyingACacheWhoseObjectsAreOut) {
  strict->put(taken);  // what is out at a fork is no error in the child
  EXPECT_DEATH(
      {
        (void)strict.get();
        delete strict.cache;
      },
      "^larder: debug_layer.cc:[0-9]+: cache \"strict\" destroyed while 1 objects are out\n$");
}

class GuardsDeathTest : public testing::Test {
 protected:
  abandoned_cache strict{"strict", options_with(debug_checks::guards)};
  unsigned char* taken = strict.get();
};

TEST_F(GuardsDeathTest, OverrunBeforeAPut) {
  poke(taken + size, 0x41);
  EXPECT_DEATH(strict->put(taken), line(object + "overrun, found at its put: byte 64 is 0x41, not 0xa7"));
}

TEST_F(GuardsDeathTest, TheLastByteOfTheGuardCounts) {
  poke(taken + size + 31, 0);
  EXPECT_DEATH(strict->put(taken), line(object + "overrun, found at its put: byte 95 is 0x00, not 0xa7"));
}

TEST_F(GuardsDeathTest, UnderrunBeforeAPut) {
  poke(taken - 3, 0x42);
  EXPECT_DEATH(strict->put(taken), line(object + "underrun, found at its put: byte -3 is 0x42, not 0xb5"));
}

TEST_F(GuardsDeathTest, OverrunAfterAPut) {
  strict->put(taken);
  poke(taken + size + 1, 0x43);
  EXPECT_DEATH(get_all(*strict.cache), line(object + "overrun, found at its get: byte 65 is 0x43, not 0xa7"));
}

TEST_F(GuardsDeathTest, OverrunOfAnObjectThatIsOutIsFoundInAnAudit) {
  poke(taken + size, 0x44);
  EXPECT_DEATH(strict->audit(), line(object + "overrun, found in an audit: byte 64 is 0x44, not 0xa7"));
}

TEST_F(GuardsDeathTest, OverrunOfAFreeObjectIsFoundBeforeItsDestruction) {
  strict->put(taken);
  poke(taken + size, 0x45);
  EXPECT_DEATH(strict->trim(), line(object + "overrun, found before its destruction: byte 64 is 0x45, not 0xa7"));
}

TEST_F(GuardsDeathTest, OverrunByAConstructor) {
  raw_cache::options chosen = options_with(debug_checks::guards);
  chosen.construct = [](void* self, void*) -> result<void> {
    poke(static_cast<unsigned char*>(self) + size, 0);
    return {};
  };
  raw_cache careless("strict", chosen);
  EXPECT_DEATH((void)careless.try_get(),
               line(object + "overrun, found after its construction: byte 64 is 0x00, not 0xa7"));
}

TEST_F(GuardsDeathTest, UnderrunByADestructor) {
  raw_cache::options chosen = options_with(debug_checks::guards);
  chosen.destroy = [](void* self, void*) { poke(static_cast<unsigned char*>(self) - 1, 0); };
  const abandoned_cache careless("strict", chosen);
  careless->put(careless.get());
  EXPECT_DEATH(careless->trim(), line(object + "underrun, found after its destruction: byte -1 is 0x00, not 0xb5"));
}

TEST_F(GuardsDeathTest, OverrunByAResetHook) {
  raw_cache::options chosen = options_with(debug_checks::guards);
  chosen.reset = [](void* self, void*) { poke(static_cast<unsigned char*>(self) + size, 0); };
  const abandoned_cache careless("strict", chosen);
  void* mine = careless.get();
  EXPECT_DEATH(careless->put(mine), line(object + "overrun, found after its reset: byte 64 is 0x00, not 0xa7"));
}

TEST_F(GuardsDeathTest, OverrunOfMemoryThatHoldsNoObjectIsFoundAsItsSlabEnds) {
  poke(taken + 2 * size + size, 9);  // after the next object's memory, which is 2 · size on with the guards between
  strict->put(taken);
  EXPECT_DEATH(strict->trim(), line(object + "overrun, found as its slab ended: byte 64 is 0x09, not 0xa7"));
}

TEST_F(GuardsDeathTest, PutOfTheGuardBeforeAnObject) {
  EXPECT_DEATH(strict->put(taken - 8), line("put of " + address + ", which is 8 bytes before the object at " + address +
                                            " of cache \"strict\""));
}

class ContentsDeathTest : public testing::Test {
 protected:
  abandoned_cache strict{"strict", options_with(debug_checks::contents)};
  unsigned char* taken = strict.get();
};

TEST_F(ContentsDeathTest, WriteAfterAPutIsFoundAtTheNextGet) {
  strict->put(taken);
  poke(taken + 20, 1);
  EXPECT_DEATH(get_all(*strict.cache), line(object + "written while it was free, found at its get: of bytes 16 to 23"));
}

TEST_F(ContentsDeathTest, WriteAfterAPutIsFoundInAnAudit) {
  strict->put(taken);
  poke(taken + 63, 1);
  EXPECT_DEATH(strict->audit(), line(object + "written while it was free, found in an audit: of bytes 56 to 63"));
}

TEST_F(ContentsDeathTest, WriteAfterAPutIsFoundBeforeTheDestruction) {
  strict->put(taken);
  poke(taken + 0, 1);
  EXPECT_DEATH(strict->trim(),
               line(object + "written while it was free, found before its destruction: of bytes 0 to 7"));
}

TEST_F(ContentsDeathTest, WriteToMemoryThatWasNeverBuiltIsFoundAtItsConstruction) {
  poke(taken + size + 9, 1);  // the object after
  EXPECT_DEATH(get_all(*strict.cache),
               line(memory + "written before its construction, found then: byte 9 is 0x01, not 0xcd"));
}

TEST_F(ContentsDeathTest, WriteToMemoryThatWasNeverBuiltIsFoundInAnAudit) {
  poke(taken + size, 2);
  EXPECT_DEATH(strict->audit(),
               line(memory + "written before its construction, found in an audit: byte 0 is 0x02, not 0xcd"));
}

TEST_F(ContentsDeathTest, WriteToADestroyedObjectIsFoundAsItsSlabEnds) {
  static unsigned char* first = nullptr;
  first = nullptr;
  raw_cache::options chosen = options_with(debug_checks::contents);
  chosen.destroy = [](void* self, void*) {
    if (first == nullptr)
      first = static_cast<unsigned char*>(self);
    else
      poke(first + 7, 3);
  };
  const abandoned_cache careless("strict", chosen);
  void* both[2];
  ASSERT_EQ(careless->get_many(both, 2), 2U);
  careless->put_many(both, 2);
  EXPECT_DEATH(careless->trim(),
               line(memory + "written after its destruction, found as its slab ended: byte 7 is 0x03, not 0xdd"));
}

TEST_F(ContentsDeathTest, WriteToAnObjectWhoseConstructorFailedIsFoundAtTheNextConstruction) {
  static unsigned char* failed = nullptr;
  raw_cache::options chosen = options_with(debug_checks::contents);
  chosen.construct = [](void* self, void*) -> result<void> {
    failed = static_cast<unsigned char*>(self);
    return error_from(EIO);
  };
  const abandoned_cache failing("strict", chosen);
  EXPECT_EQ(failing.get(), nullptr);
  poke(failed + 1, 4);
  EXPECT_DEATH((void)failing.get(),
               line(memory + "written after its destruction, found before its construction: byte 1 is 0x04, not 0xdd"));
}

class AuditDeathTest : public testing::Test {
 protected:
  abandoned_cache strict{"strict", options_with(debug_checks::all)};
  unsigned char* taken = strict.get();
  // Misuse is in the child alone, so that nothing is out for the tests of report_leaks.
  ~AuditDeathTest() override { strict->put(taken); }
};

TEST_F(AuditDeathTest, ADoublePutTellsWhoGotAndWhoPut) {
  EXPECT_DEATH(
      {
        strict->put(taken);
        strict->put(taken);
      },
      line("put of " + address + ", which is free already \\(put twice\\?\\)\n  got " + stack + "\n  put " + stack));
}

TEST_F(AuditDeathTest, AnOverrunTellsWhoGot) {
  EXPECT_DEATH(
      {
        poke(taken + size, 0);
        strict->put(taken);
      },
      line(object + "overrun, found at its put: byte 64 is 0x00, not 0xa7\n  got " + stack + "\n  put " + stack));
}

TEST_F(AuditDeathTest, AWriteAfterAPutTellsWhoPut) {
  EXPECT_DEATH(
      {
        strict->put(taken);
        poke(taken + 1, 0);
        get_all(*strict.cache);
      },
      line(object + "written while it was free, found at its get: of bytes 0 to 7" + "\n  got " + stack + "\n  put " +
           stack));
}

TEST_F(AuditDeathTest, AnotherCachesObjectTellsWhoGot) {
  const abandoned_cache other("other", options_with(debug_checks::all));
  unsigned char* theirs = other.get();
  EXPECT_DEATH(strict->put(theirs),
               line("put of " + address + ", which is an object of cache \"other\"\n  got " + stack));
  other->put(theirs);
}

// KF-5
TEST_F(AuditDeathTest, DestroyingACacheTellsWhoHoldsItsObjects) {
  strict->put(taken);
  EXPECT_DEATH(
      {
        (void)strict.get();
        delete strict.cache;
      },
      "^larder: debug_layer.cc:[0-9]+: cache \"strict\" destroyed while 1 objects are out\n"
      "1 object out \\(64 bytes\\), of \"strict\": 1, got by:\n(    [^\n]+\n)+\n$");
  taken = strict.get();
}

TEST(DebugSettingDeathTest, AMalformedVariableKillsTheFirstCache) {
  const auto create = [](const char* setting) {
    ::setenv("LARDER_DEBUG", setting, 1);
    raw_cache::options chosen;
    chosen.size = size;
    const raw_cache cache("any", chosen);
  };
  const std::string head = "^larder: debug_setting.cc:[0-9]+: LARDER_DEBUG is ";
  const std::string choices = " is no check: one of none, ownership, guards, contents, audit, all\n$";
  EXPECT_DEATH(create("gards,audit"), head + "\"gards,audit\": \"gards\"" + choices);
  EXPECT_DEATH(create("other=all;"), head + "\"other=all;\": \"\"" + choices);
  EXPECT_DEATH(create("=all"), head + "\"=all\": a cache's name is missing before \"=all\"\n$");
}

// Without debug mode, what reaches the slabs is checked there.
class ReleaseDeathTest : public testing::Test {
 protected:
  static raw_cache::options large() {
    raw_cache::options chosen = options_with(debug_checks::none);
    chosen.size = 100'000;  // no array in between
    return chosen;
  }
  static std::string line(const std::string& text) {
    return "^larder: [a-z_]+.cc:[0-9]+: cache \"strict\"" + text + "\n$";
  }
  abandoned_cache strict{"strict", large()};
  unsigned char* taken = strict.get();
};

TEST_F(ReleaseDeathTest, PutOfAnObjectThatIsFree) {
  strict->put(taken);
  EXPECT_DEATH(strict->put(taken), line(": put of " + address + ", which is .*\\(?put twice\\?\\)"));
}
TEST_F(ReleaseDeathTest, PutOfMemoryOfNoCache) {
  int foreign = 0;
  EXPECT_DEATH(strict->put(&foreign), line(": put of " + address + ", which is no object of this cache"));
}
TEST_F(ReleaseDeathTest, PutOfAnObjectOfAnotherCache) {
  const abandoned_cache other("other", large());
  unsigned char* theirs = other.get();
  EXPECT_DEATH(strict->put(theirs), line(": put of " + address + ", which is no object of this cache"));
}
TEST_F(ReleaseDeathTest, PutOfTheMiddleOfAnObject) {
  EXPECT_DEATH(strict->put(taken + 8), line(": put of " + address + ", which is not the start of an object"));
}
TEST_F(ReleaseDeathTest, PutOfASlabsHeader) {
  EXPECT_DEATH(strict->put(taken - 8), line(": put of " + address + ", which is not the start of an object"));
}
TEST_F(ReleaseDeathTest, DestroyingACacheWhoseObjectsAreOut) {
  strict->put(taken);
  EXPECT_DEATH(
      {
        (void)strict.get();
        delete strict.cache;
      },
      line(" destroyed while 1 objects are out"));
}

}  // namespace
}  // namespace larder
