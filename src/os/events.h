// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::os {

// What a descriptor can be polled for, and answer: poll(2)'s numbers.
inline constexpr short event_readable = 0x001;
inline constexpr short event_writable = 0x004;
inline constexpr short event_hung_up = 0x010;

}  // namespace larder::os
